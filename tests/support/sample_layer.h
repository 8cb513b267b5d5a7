// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/moments.h"
#include "core/methods/method.h"

namespace rankscope::test {

/// A made-up layer: weights with a decaying low-rank part, inputs with correlated channels, of which a few
/// are large.
struct SampleLayer {
    Matrix weight;
    Matrix activations; ///< in × tokens
    Moments moments;
};

struct SampleShape {
    Index out = 24;
    Index in = 40;
    Index tokens = 200;
    Index outliers = 3;
};
SampleLayer sample_layer(const SampleShape& shape, std::uint64_t seed);

/// The moments of inputs given as channels × tokens, and of them rounded so.
Moments moments_of_columns(const Matrix& activations, const ActivationQuantization& rounding = {4, 0.9});

/// tr(E·H·Eᵀ) in float64, written out plainly.
double objective(const Matrix& error, const MatrixD& hessian);

} // namespace rankscope::test
