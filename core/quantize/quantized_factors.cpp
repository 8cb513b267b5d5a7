// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/quantized_factors.h"

#include "core/base/multiarch.h"
#include "core/compute/e8p.h"

#include <Eigen/Cholesky>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_ridge = 1e-10;       ///< of the mean diagonal, in the least squares of rank size
constexpr double k_single_ridge = 1e-7; ///< the same where products are float32
constexpr int k_patience = 4;           ///< rounds without gain before the early stop
constexpr double k_least_gain = 0.001;  ///< of the best objective

/// X with G·X = B, G symmetric and positive semidefinite, r × r.
MatrixD solve_normal(const MatrixD& gram, const MatrixD& right_side, double ridge)
{
    MatrixD regular = gram;
    regular.diagonal().array() += ridge * gram.diagonal().mean();
    const Eigen::LLT<MatrixD> factor(regular);
    if (factor.info() == Eigen::Success && factor.matrixLLT().diagonal().minCoeff() > 0.0)
        return factor.solve(right_side);
    return gram.completeOrthogonalDecomposition().solve(right_side);
}

RANKSCOPE_MULTIARCH
void round_bytes(float* values, Index count, float scale)
{
    constexpr float magic = 12582912.0F; // adding it leaves no fraction bits: half to even
    for (Index i = 0; i < count; ++i) {
        float code = values[i] / scale;
        code = code < -128.0F ? -128.0F : code;
        code = code > 127.0F ? 127.0F : code;
        values[i] = scale * ((code + magic) - magic);
    }
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
        round_bytes(rows.row(row).data(), rows.cols(), scale);
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

namespace {

/// The alternation. Everything of size m or n stays in the precision of the products; what is r × r is
/// float64.
class FactorFit {
public:
    FactorFit(const Buffer& a, double whole, const Buffer& hessian, const FactorOptions& options,
              Backend& backend)
        : a_(a), whole_(whole), hessian_(hessian), options_(options), backend_(backend),
          ridge_(a.precision() == Precision::Float32 ? k_single_ridge : k_ridge)
    {}

    LowRankBuffers run(const LowRankBuffers& start, Monitor& monitor)
    {
        right_ = backend_.convert(start.right, a_.precision());
        weighted_ = start.weighted_right.empty() ? backend_.multiply(right_, hessian_) : start.weighted_right;
        measure_right();
        best_.tail = std::numeric_limits<double>::infinity();
        best_.left = backend_.allocate(a_.rows(), right_.rows());
        best_.right = backend_.allocate(right_.rows(), a_.cols());
        double reference = best_.tail;
        int stalled = 0;
        for (int iteration = 0; iteration < options_.iterations; ++iteration) {
            monitor.throw_if_cancelled();
            step();
            const bool gained = best_.tail < (1.0 - k_least_gain) * reference;
            reference = gained ? best_.tail : reference;
            stalled = gained ? 0 : stalled + 1;
            if (options_.early_stop && stalled >= k_patience)
                break;
        }
        if (!std::isfinite(best_.tail)) { // no pair was finite: nothing is taken
            best_.tail = whole_;
            best_.weighted_right = backend_.allocate(right_.rows(), a_.cols(), a_.precision());
        }
        best_.tail = std::max(0.0, best_.tail);
        return best_;
    }

private:
    /// R·H·Rᵀ and R·H·Aᵀ of the present R.
    void measure_right()
    {
        metric_ =
            backend_.download_double(backend_.multiply(weighted_, Transpose::No, right_, Transpose::Yes));
        target_ = backend_.download_double(backend_.multiply(weighted_, Transpose::No, a_, Transpose::Yes));
    }

    Buffer in_precision(const MatrixD& matrix)
    {
        if (a_.precision() == Precision::Float64)
            return backend_.upload(matrix);
        return backend_.upload(Matrix(matrix.cast<float>()));
    }

    void step()
    {
        const MatrixD left = rounded(solve_normal(metric_, target_, ridge_), options_); // Lᵀ
        const MatrixD gram = left * left.transpose();
        const MatrixD projected = backend_.download_double(backend_.multiply(in_precision(left), a_));
        const MatrixD right = rounded(solve_normal(gram, projected, ridge_), options_);
        right_ = in_precision(right);
        weighted_ = backend_.multiply(right_, hessian_);
        measure_right();
        const double own = gram.cwiseProduct(metric_).sum();
        const double objective = whole_ - 2.0 * target_.cwiseProduct(left).sum() + own;
        if (!(objective < best_.tail))
            return;
        best_.tail = objective;
        best_.left = backend_.upload(Matrix(left.transpose().cast<float>()));
        best_.right = backend_.upload(Matrix(right.cast<float>()));
        best_.weighted_right = weighted_;
        best_.squared_norm = own;
    }

    const Buffer& a_;
    double whole_;
    const Buffer& hessian_;
    const FactorOptions& options_;
    Backend& backend_;
    double ridge_;
    Buffer right_, weighted_;
    MatrixD metric_, target_;
    LowRankBuffers best_;
};

} // namespace

LowRankBuffers quantize_factors(const Buffer& a, double whole, const Buffer& hessian,
                                const LowRankBuffers& start, const FactorOptions& options, Backend& backend,
                                Monitor& monitor)
{
    if (options.bits >= 16 || start.left.empty())
        return start;
    return FactorFit(a, whole, hessian, options, backend).run(start, monitor);
}

LowRankBuffers quantized_low_rank(const Buffer& a, const Buffer& hessian, Index rank,
                                  const FactorOptions& options, Backend& backend, Monitor& monitor)
{
    const Buffer wide = backend.convert(a, Precision::Float64);
    const double whole = options.bits >= 16 ? 0.0 : weighted_squared_norm(wide, hessian, backend);
    return quantize_factors(wide, whole, hessian, weighted_low_rank(wide, hessian, rank, backend), options,
                            backend, monitor);
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
