// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/weight_statistics.h"

#include "core/base/random.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {

WeightStatistics weight_statistics(const Matrix& weight)
{
    WeightStatistics statistics;
    statistics.row_max = VectorD::Zero(weight.rows());
    statistics.column_max = VectorD::Zero(weight.cols());
    if (weight.size() == 0)
        return statistics;
    const double count = static_cast<double>(weight.size());
    double sum = 0.0;
    double squares = 0.0;
    for (Index row = 0; row < weight.rows(); ++row) {
        const VectorD values = weight.row(row).transpose().cast<double>();
        statistics.row_max[row] = values.cwiseAbs().maxCoeff();
        statistics.column_max = statistics.column_max.cwiseMax(values.cwiseAbs());
        sum += values.sum();
        squares += values.squaredNorm();
    }
    const double mean = sum / count;
    double second = 0.0;
    double fourth = 0.0;
    for (Index row = 0; row < weight.rows(); ++row) { // by rows: no second copy of a large matrix
        const VectorD apart = (weight.row(row).transpose().cast<double>().array() - mean).square().matrix();
        second += apart.sum();
        fourth += apart.squaredNorm();
    }
    statistics.max_abs = statistics.row_max.maxCoeff();
    statistics.rms = std::sqrt(squares / count);
    statistics.kurtosis = second > 0.0 ? fourth * count / (second * second) : 0.0;
    statistics.incoherence = statistics.rms > 0.0 ? statistics.max_abs / statistics.rms : 0.0;
    return statistics;
}

double off_diagonal_share(const MatrixD& hessian)
{
    const double whole = hessian.squaredNorm();
    return whole > 0.0 ? std::max(0.0, 1.0 - hessian.diagonal().squaredNorm() / whole) : 0.0;
}

MatrixD correlation_map(const MatrixD& hessian, Index cells)
{
    const Index n = hessian.rows();
    const Index edge = std::min(std::max<Index>(1, cells), n);
    MatrixD map = MatrixD::Zero(edge, edge);
    const double norm = hessian.norm();
    if (!(norm > 0.0))
        return map;
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
            double& cell = map(i * edge / n, j * edge / n);
            cell = std::max(cell, std::abs(hessian(i, j)) / norm);
        }
    }
    return map;
}

double quantization_gain(const Matrix& weight, const Moments* moments, const UniformGrid& grid,
                         Backend& backend)
{
    const Buffer w = backend.upload(weight);
    const Buffer error = backend.difference(w, backend.round_nearest(w, backend.fit_grid(w, grid)).values);
    const auto energy = [&](const Buffer& a) {
        if (!moments || moments->empty())
            return backend.dot(a, a);
        const Buffer h = backend.upload(Matrix(moments->hessian.cast<float>()));
        return backend.dot(backend.multiply(a, h), a);
    };
    const double kept = energy(w);
    const double lost = energy(error);
    if (!(kept > 0.0))
        return 0.0;
    return lost > 0.0 ? 10.0 * std::log10(kept / lost) : std::numeric_limits<double>::infinity();
}

VectorD leading_singular_values(const Buffer& a, Index count, std::uint64_t seed, Backend& backend)
{
    constexpr Index k_more = 10;     // columns beyond those asked for
    constexpr int k_power_steps = 2; // each sharpens a spectrum that falls slowly
    const Index least = std::min(a.rows(), a.cols());
    const Index columns = std::min(count + k_more, least);
    if (columns <= 0)
        return {};
    if (4 * columns > least) // no cheaper than all of them
        return backend.singular_values(a).head(std::min(count, least));
    const RandomStream random(seed, "range finder");
    Matrix start(a.cols(), columns);
    for (Index i = 0; i < start.size(); ++i)
        start.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    const Buffer same = a.precision() == Precision::Float32 ? a : backend.convert(a, Precision::Float32);
    Buffer range = backend.multiply(same, backend.upload(start));
    backend.orthonormalize(range);
    for (int step = 0; step < k_power_steps; ++step) {
        Buffer back = backend.multiply(same, Transpose::Yes, range, Transpose::No);
        backend.orthonormalize(back);
        range = backend.multiply(same, back);
        backend.orthonormalize(range);
    }
    const Buffer inner = backend.multiply(range, Transpose::Yes, same, Transpose::No);
    return backend.singular_values(inner).head(std::min(count, least));
}

} // namespace rankscope
