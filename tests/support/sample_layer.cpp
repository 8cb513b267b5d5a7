// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/sample_layer.h"

#include "core/base/random.h"

#include <cmath>

namespace rankscope::test {
namespace {

MatrixD normal_matrix(const RandomStream& stream, Index rows, Index cols)
{
    MatrixD result(rows, cols);
    for (Index i = 0; i < result.size(); ++i)
        result.data()[i] = stream.normal(static_cast<std::uint64_t>(i));
    return result;
}

} // namespace

Moments moments_of(const Matrix& activations)
{
    const MatrixD x = activations.cast<double>();
    Moments moments;
    moments.tokens = static_cast<std::uint64_t>(x.cols());
    moments.hessian = x * x.transpose() / static_cast<double>(std::max<Index>(1, x.cols()));
    moments.mean_abs = x.cwiseAbs().rowwise().mean();
    moments.max_abs = x.cwiseAbs().rowwise().maxCoeff();
    return moments;
}

SampleLayer sample_layer(const SampleShape& shape, std::uint64_t seed)
{
    const Index core = std::max<Index>(1, std::min(shape.out, shape.in) / 4);
    const MatrixD left = normal_matrix(RandomStream(seed, "left"), shape.out, core);
    const MatrixD right = normal_matrix(RandomStream(seed, "right"), core, shape.in);
    const MatrixD noise = normal_matrix(RandomStream(seed, "noise"), shape.out, shape.in);
    const MatrixD mix = normal_matrix(RandomStream(seed, "mix"), shape.in, shape.in)
                        / std::sqrt(static_cast<double>(shape.in));
    MatrixD source = normal_matrix(RandomStream(seed, "tokens"), shape.in, shape.tokens);
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
    layer.moments = moments_of(layer.activations);
    return layer;
}

double objective(const Matrix& error, const MatrixD& hessian)
{
    const MatrixD e = error.cast<double>();
    return (e * hessian).cwiseProduct(e).sum();
}

} // namespace rankscope::test
