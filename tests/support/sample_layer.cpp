// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/sample_layer.h"

#include "core/base/random.h"
#include "core/calibration/quantized_activations.h"
#include "tests/support/numbers.h"

#include <cmath>

namespace rankscope::test {

Moments moments_of_columns(const Matrix& activations, const ActivationQuantization& rounding)
{
    return moments_of(MatrixD(activations.transpose().cast<double>()), rounding);
}

SampleLayer sample_layer(const SampleShape& shape, std::uint64_t seed)
{
    const Index core = std::max<Index>(1, std::min(shape.out, shape.in) / 4);
    const MatrixD left = random_matrix(shape.out, core, seed, "left");
    const MatrixD right = random_matrix(core, shape.in, seed, "right");
    const MatrixD noise = random_matrix(shape.out, shape.in, seed, "noise");
    const MatrixD mix =
        random_matrix(shape.in, shape.in, seed, "mix") / std::sqrt(static_cast<double>(shape.in));
    MatrixD source = random_matrix(shape.in, shape.tokens, seed, "tokens");
    for (Index i = 0; i < shape.in; ++i)
        source.row(i) *= std::pow(1.0 + static_cast<double>(i), -0.4);
    MatrixD x = mix * source;
    const RandomStream places(seed, "outliers");
    for (Index i = 0; i < shape.outliers; ++i)
        x.row(static_cast<Index>(
            places.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(shape.in)))) *= 20.0;
    SampleLayer layer;
    layer.weight = (0.03 * (left * right / std::sqrt(static_cast<double>(core)) + noise)).cast<float>();
    layer.activations = x.cast<float>();
    layer.moments = moments_of_columns(layer.activations);
    return layer;
}

double objective(const Matrix& error, const MatrixD& hessian)
{
    const MatrixD e = error.cast<double>();
    return (e * hessian).cwiseProduct(e).sum();
}

} // namespace rankscope::test
