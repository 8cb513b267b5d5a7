// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/quantized_factors.h"

#include "core/quantize/e8p.h"

#include <Eigen/Cholesky>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_ridge = 1e-10; ///< of the mean diagonal, in the least squares of rank size

/// X with G·X = B, G symmetric and positive semidefinite, r × r.
MatrixD solve_normal(const MatrixD& gram, const MatrixD& right_side)
{
    MatrixD regular = gram;
    regular.diagonal().array() += k_ridge * gram.diagonal().mean();
    const Eigen::LLT<MatrixD> factor(regular);
    if (factor.info() == Eigen::Success && factor.matrixLLT().diagonal().minCoeff() > 0.0)
        return factor.solve(right_side);
    return gram.completeOrthogonalDecomposition().solve(right_side);
}

/// Integers −128 … 127 with the largest magnitude at 127.
void round_to_bytes(Matrix& rows, bool per_row)
{
    const float largest = rows.size() == 0 ? 0.0F : rows.cwiseAbs().maxCoeff();
    for (Index row = 0; row < rows.rows(); ++row) {
        const float range = per_row ? rows.row(row).cwiseAbs().maxCoeff() : largest;
        const float scale = range / 127.0F;
        if (!(scale > 0.0F)) {
            rows.row(row).setZero();
            continue;
        }
        rows.row(row) = rows.row(row).unaryExpr(
            [scale](float x) { return scale * std::clamp(std::nearbyint(x / scale), -128.0F, 127.0F); });
    }
}

/// The lattice has no point at zero: a component without weight stays zero instead of becoming noise.
void round_to_lattice(Matrix& rows, bool per_row)
{
    const Matrix values = e8p_round(rows, 4, 1.0, per_row).values;
    for (Index row = 0; row < rows.rows(); ++row)
        if (!rows.row(row).isZero(0.0F))
            rows.row(row) = values.row(row);
}

/// Rows of `factor` are components (Lᵀ, R).
MatrixD rounded(const MatrixD& factor, const FactorOptions& options)
{
    Matrix rows = factor.cast<float>();
    if (options.bits == 8)
        round_to_bytes(rows, options.per_component);
    else
        round_to_lattice(rows, options.per_component);
    return rows.cast<double>();
}

} // namespace

LowRankBuffers quantized_low_rank(const Buffer& a, const Buffer& hessian, Index rank,
                                  const FactorOptions& options, Backend& backend, Monitor& monitor)
{
    const LowRankBuffers exact = weighted_low_rank(a, hessian, rank, backend);
    if (options.bits >= 16 || exact.left.empty())
        return exact;
    const Buffer wide = backend.convert(a, Precision::Float64);
    const Buffer weighted = backend.multiply(wide, hessian); // A·H
    const double whole = backend.dot(weighted, wide);
    MatrixD right = backend.download(exact.right).cast<double>();
    MatrixD metric; // R·H·Rᵀ
    const auto measure_right = [&] {
        const Buffer r = backend.upload(right);
        metric = backend.download_double(
            backend.multiply(backend.multiply(r, hessian), Transpose::No, r, Transpose::Yes));
        return backend.download_double(
            backend.multiply(r, Transpose::No, weighted, Transpose::Yes)); // R·H·Aᵀ
    };
    MatrixD right_weighted = measure_right();
    double best = std::numeric_limits<double>::infinity();
    MatrixD best_left = MatrixD::Zero(right.rows(), a.rows());
    MatrixD best_right = MatrixD::Zero(right.rows(), a.cols());
    for (int iteration = 0; iteration < options.iterations; ++iteration) {
        monitor.throw_if_cancelled();
        const MatrixD left = rounded(solve_normal(metric, right_weighted), options); // Lᵀ
        const MatrixD gram = left * left.transpose();
        const MatrixD projected = backend.download_double(backend.multiply(backend.upload(left), wide));
        right = rounded(solve_normal(gram, projected), options);
        right_weighted = measure_right();
        const double objective =
            whole - 2.0 * right_weighted.cwiseProduct(left).sum() + gram.cwiseProduct(metric).sum();
        if (objective < best) {
            best = objective;
            best_left = left;
            best_right = right;
        }
    }
    return {backend.upload(Matrix(best_left.transpose().cast<float>())),
            backend.upload(Matrix(best_right.cast<float>())), std::max(0.0, best)};
}

double factor_storage_bits(Index rows, Index cols, Index rank, const FactorOptions& options)
{
    const auto r = static_cast<double>(rank);
    if (rank == 0 || options.bits >= 16)
        return 16.0 * r * static_cast<double>(rows + cols);
    const auto padded = [&](Index count) { return options.bits == 4 ? (count + 7) / 8 * 8 : count; };
    const double scales = options.per_component ? 2.0 * r : 2.0;
    return options.bits * r * static_cast<double>(padded(rows) + padded(cols)) + 16.0 * scales;
}

} // namespace rankscope
