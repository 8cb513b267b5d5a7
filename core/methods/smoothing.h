// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/moments.h"
#include "core/compute/backend.h"

#include <span>

namespace rankscope {

/// SmoothQuant (arXiv 2211.10438; methods-learned §3): one factor s_j for each input of the linears that read
/// one tensor, W ← W·diag(s) and x ← x / s. s_j = max(eps, a_j^alpha / w_j^(1 − alpha)) with a_j = max|x_j|
/// and w_j the largest weight of any of these linears on input j, at least eps.
VectorD smooth_scales(const VectorD& max_abs, std::span<const Matrix> weights, double alpha,
                      double eps = 1e-5);

/// What activations and weights are rounded to after smoothing, to choose alpha by.
struct SmoothingGrid {
    UniformGrid weights;
    int activation_bits = 8; ///< one static range for the tensor
};
/// Output error predicted for these scales, from the calibration alone: tr(E·H·Eᵀ) of the rounded smoothed
/// weights plus that of activations rounded with the step Δ = (largest |x_j| / s_j) · 2/(2^b − 1):
/// Δ²/12·‖W·diag(s)‖²_F.
double predicted_smoothing_error(const Moments& moments, std::span<const Matrix> weights,
                                 const VectorD& scales, const SmoothingGrid& grid, Backend& backend);

/// The alpha in 0.5, 0.55 … 0.95 whose predicted error is least; the first of equals.
double best_smoothing_alpha(const Moments& moments, std::span<const Matrix> weights,
                            const SmoothingGrid& grid, Backend& backend);

/// SVDQuant (arXiv 2411.05007; methods-learned §4.2) of one layer on a sample of its inputs.
struct SvdQuantOptions {
    UniformGrid weights;
    int activation_bits = 4;
    Index activation_group = 64; ///< inputs of a token that share a step
    Index rank = 32;
    int grid = 20; ///< smoothing exponents are multiples of 1/grid
    int iterations = 100;
};
/// W·x ≈ Q·round(x / s) + L·(R·(x / s)).
struct SvdQuantResult {
    VectorD smooth;
    Matrix quantized, left, right;
    double relative_output_error = 0.0;
    double alpha = 0.0;
    bool weight_term = false; ///< whether the weights' magnitudes entered s
};
/// Searches smoothing exponents; for each alternates L·R = [W·diag(s) − Q]_r, Q = round(W·diag(s) − L·R)
/// until the output error rises. x: tokens × in. The candidate of least output error wins. Throws Cancelled.
SvdQuantResult svdquant(const Buffer& weight, const Buffer& x, const SvdQuantOptions& options,
                        Backend& backend, Monitor& monitor);

} // namespace rankscope
