// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/method.h"

#include "core/base/thread_pool.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope {
namespace {

constexpr Index k_tile_rows = 256; ///< fixed, so that the sums do not depend on the number of threads

/// tr(A·H·Aᵀ) in float64; ‖A‖²_F when H is null.
double squared_norm(const Matrix& a, const MatrixD* hessian)
{
    const Index tiles = (a.rows() + k_tile_rows - 1) / k_tile_rows;
    std::vector<double> sums(static_cast<std::size_t>(tiles), 0.0);
    parallel_for(0, tiles, [&](Index tile) {
        const Index first = tile * k_tile_rows;
        const MatrixD part = a.middleRows(first, std::min(k_tile_rows, a.rows() - first)).cast<double>();
        double& sum = sums[static_cast<std::size_t>(tile)];
        if (!hessian) {
            sum = part.squaredNorm();
        } else {
            const MatrixD product = part * *hessian;
            sum = product.cwiseProduct(part).sum();
        }
    });
    double total = 0.0;
    for (const double sum : sums)
        total += sum;
    return std::max(total, 0.0);
}

/// From the rotated basis, if there is one, to that of the weight; on the reference backend, so that every
/// caller gets the same bytes.
Matrix restored(const Decomposition& decomposition, Matrix matrix)
{
    if (decomposition.transform.empty())
        return matrix;
    return decomposition.transform.restored_weight(matrix, *make_cpu_backend());
}

/// sqrt(part / whole); against nothing, nothing is 0 and anything is 1.
double norm_ratio(double part, double whole)
{
    if (whole > 0.0)
        return std::sqrt(part / whole);
    return part > 0.0 ? 1.0 : 0.0;
}

} // namespace

Matrix Decomposition::reconstruct() const
{
    Matrix result;
    if (quantized.empty()) {
        result = low_rank.left * low_rank.right;
    } else {
        result = quantized.dequantize();
        if (low_rank.rank() > 0)
            result.noalias() += low_rank.left * low_rank.right;
    }
    return restored(*this, std::move(result));
}

double Decomposition::bits_per_weight() const
{
    const double rows = static_cast<double>(quantized.empty() ? low_rank.left.rows() : quantized.rows());
    const double cols = static_cast<double>(quantized.empty() ? low_rank.right.cols() : quantized.cols());
    if (rows * cols <= 0.0)
        return 0.0;
    const double factor_bits =
        factor_storage_bits(low_rank.left.rows(), low_rank.right.cols(), low_rank.rank(), factors);
    const double sign_bits = transform.empty() ? 0.0 : rows + cols;
    return quantized.bits_per_weight() + (factor_bits + sign_bits) / (rows * cols);
}

DecompositionQuality measure(const Matrix& weight, const Decomposition& decomposition, const Moments* moments)
{
    DecompositionQuality quality;
    const MatrixD* hessian = moments && !moments->empty() ? &moments->hessian : nullptr;
    const Matrix low_rank =
        restored(decomposition, decomposition.low_rank.left * decomposition.low_rank.right);
    const bool quantized = !decomposition.quantized.empty();
    const Matrix q = quantized ? restored(decomposition, decomposition.quantized.dequantize())
                               : Matrix::Zero(weight.rows(), weight.cols());
    Matrix error = weight - q;
    if (low_rank.size() > 0)
        error -= low_rank;
    const double plain = squared_norm(weight, nullptr);
    quality.relative_error = norm_ratio(squared_norm(error, nullptr), plain);
    const double whole = hessian ? squared_norm(weight, hessian) : plain;
    quality.relative_activation_error =
        hessian ? norm_ratio(squared_norm(error, hessian), whole) : quality.relative_error;
    quality.ratio_qx = norm_ratio(squared_norm(q, hessian), whole);
    quality.ratio_lrx = low_rank.size() > 0 ? norm_ratio(squared_norm(low_rank, hessian), whole) : 0.0;
    return quality;
}

Status check_moments(const LayerProblem& problem)
{
    const Moments* moments = problem.moments;
    if (!moments || moments->empty())
        return usage_error("this method needs the moments of the layer's input, and there are none",
                           problem.name, "Calibrate first, or choose a method that needs no calibration.");
    const Index n = problem.weight.cols();
    if (moments->hessian.rows() != n || moments->hessian.cols() != n)
        return bad_input(
            fmt::format("the calibration holds moments of {} × {} inputs, the weight has {} inputs",
                        moments->hessian.rows(), moments->hessian.cols(), n),
            problem.name, "Calibrate this checkpoint.");
    if (!moments->hessian.allFinite())
        return bad_input("the moments of the layer's input hold a value that is not finite", problem.name,
                         "Calibrate again.");
    if (moments->hessian.diagonal().minCoeff() < 0.0)
        return bad_input(
            "the moments of the layer's input have a negative diagonal, which no second moment has",
            problem.name, "Calibrate again.");
    return {};
}

Status check_problem(const LayerProblem& problem, const MethodInfo& info, const Parameters& parameters,
                     Backend& backend)
{
    const Index rows = problem.weight.rows();
    const Index cols = problem.weight.cols();
    if (rows <= 0 || cols <= 0)
        return bad_input(fmt::format("the weight is empty ({} × {})", rows, cols), problem.name);
    if (info.find("rank")) {
        const std::int64_t rank = parameters.integer("rank");
        if (rank > std::min(rows, cols))
            return usage_error(fmt::format("rank {} is beyond the weight of {} × {}: at most {} is possible",
                                           rank, rows, cols, std::min(rows, cols)),
                               problem.name, "Choose a smaller rank for this layer.");
    }
    if (!std::isfinite(backend.max_abs(problem.weight)))
        return bad_input("the weight holds a value that is not finite (NaN or infinity)", problem.name,
                         "Leave this layer out, or repair the checkpoint.");
    return info.needs.hessian ? check_moments(problem) : Status{};
}

} // namespace rankscope
