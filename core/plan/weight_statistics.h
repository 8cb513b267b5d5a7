// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/moments.h"
#include "core/compute/backend.h"

namespace rankscope {

/// What a weight's own numbers say about how hard it is to quantise (methods-learned §6.2).
struct WeightStatistics {
    double max_abs = 0.0;
    double rms = 0.0;
    double kurtosis = 0.0;    ///< m4 / m2² over all entries; Gaussian 3; 0 for a constant matrix
    double incoherence = 0.0; ///< max|W|·√(mn) / ‖W‖_F
    VectorD row_max;          ///< out: largest |w| of each output
    VectorD column_max;       ///< in
};
WeightStatistics weight_statistics(const Matrix& weight);

/// 1 − Σ H_jj² / ‖H‖²_F: 0 where channels are uncorrelated and a diagonal scale says all (QERA-approx); 0 for
/// H = 0.
double off_diagonal_share(const MatrixD& hessian);
/// |H| / ‖H‖_F, each cell the largest of the entries it covers, so that a strong pair never vanishes: at most
/// cells × cells.
MatrixD correlation_map(const MatrixD& hessian, Index cells);
/// 20·log10(‖W·H^½‖_F / ‖E·H^½‖_F) in dB, E = W − Q with Q nearest rounding to `grid`: one number a layer. H
/// the identity without moments. 0 for W = 0, infinite where nothing is lost.
double quantization_gain(const Matrix& weight, const Moments* moments, const UniformGrid& grid,
                         Backend& backend);

/// The `count` largest singular values of a, falling, from a randomized range finder with two power steps
/// (Halko, Martinsson, Tropp 2011): for a picture at once, 10 to 20 times as fast as all of them, and never
/// above the true ones by more than rounding.
VectorD leading_singular_values(const Buffer& a, Index count, std::uint64_t seed, Backend& backend);

} // namespace rankscope
