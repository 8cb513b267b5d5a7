// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/linalg/low_rank_solver.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr Index k_exact_side = 256;    ///< sides up to this are solved exactly
constexpr int k_most_steps = 12;       ///< of one subspace iteration
constexpr double k_settled = 1e-4;     ///< of the objective: what a step must gain for another one
constexpr double k_least_share = 1e-3; ///< below this share of its terms a difference is computed anew

/// Half again as many columns as the rank: the Ritz values of the first r then settle fast on flat spectra.
Index subspace_width(Index rank, Index side) { return std::min(side, rank + std::max<Index>(16, rank / 2)); }

Buffer random_basis(Index rows, Index cols, const RandomStream& random, Backend& backend)
{
    Matrix basis(rows, cols);
    for (Index i = 0; i < basis.size(); ++i)
        basis.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    return backend.upload(basis);
}

MatrixD symmetric(const MatrixD& matrix) { return 0.5 * (matrix + matrix.transpose()); }

} // namespace

LowRankSolver::LowRankSolver(const Buffer& hessian, Index rows, Index rank, LowRankMethod method,
                             const RandomStream& random, Backend& backend)
    : rank_(std::clamp<Index>(rank, 0, std::min(rows, hessian.cols()))), hessian_(hessian), random_(random),
      backend_(backend)
{
    const Index side = std::min(rows, hessian.cols());
    const Index width = subspace_width(rank_, side);
    if (method == LowRankMethod::Exact || side <= k_exact_side || 3 * width > side)
        return;
    width_ = width;
    precision_ = Precision::Float32;
    hessian_ = backend.convert(hessian, Precision::Float32);
    basis_ = random_basis(rows, width, random, backend);
}

LowRankBuffers LowRankSolver::solve(const Buffer& a, double whole, const Monitor& monitor)
{
    monitor.throw_if_cancelled();
    return width_ == 0 ? solve_exactly(a) : solve_in_subspace(a, whole, monitor);
}

LowRankBuffers LowRankSolver::solve_exactly(const Buffer& a) const
{
    LowRankBuffers factors = weighted_low_rank(a, hessian_, rank_, backend_);
    if (rank_ > 0)
        add_products(factors, hessian_, backend_);
    return factors;
}

LowRankBuffers LowRankSolver::solve_in_subspace(const Buffer& a, double whole, const Monitor& monitor)
{
    double captured = 0.0;
    for (int step = 0;; ++step) {
        monitor.throw_if_cancelled();
        backend_.orthonormalize(basis_);
        const Buffer inner = backend_.multiply(basis_, Transpose::Yes, a, Transpose::No); // Qᵀ·A
        const Buffer weighted = backend_.multiply(inner, hessian_);
        const MatrixD gram = symmetric(
            backend_.download_double(backend_.multiply(weighted, Transpose::No, inner, Transpose::Yes)));
        const SymmetricEigen ritz = backend_.top_eigen(backend_.upload(gram), rank_);
        const double now = ritz.values.cwiseMax(0.0).sum();
        const double gained = now - captured;
        captured = now;
        const bool settled = step > 0 && gained <= k_settled * std::max(whole - now, 0.0);
        if (!settled && step + 1 < k_most_steps) {
            basis_ = backend_.multiply(a, Transpose::No, weighted, Transpose::Yes); // A·H·Aᵀ·Q
            continue;
        }
        const Buffer turn = backend_.convert(ritz.vectors, Precision::Float32);
        LowRankBuffers factors;
        factors.left = backend_.multiply(basis_, turn);
        factors.right = backend_.multiply(turn, Transpose::Yes, inner, Transpose::No);
        factors.weighted_right = backend_.multiply(turn, Transpose::Yes, weighted, Transpose::No);
        factors.squared_norm = captured; // L is orthonormal
        factors.tail = std::max(0.0, whole - captured);
        if (factors.tail < k_least_share * whole)
            factors.tail = objective_of(a, whole, factors, hessian_, backend_);
        return factors;
    }
}

void add_products(LowRankBuffers& factors, const Buffer& hessian, Backend& backend)
{
    const Precision precision = hessian.precision();
    const Buffer left = backend.convert(factors.left, precision);
    const Buffer right = backend.convert(factors.right, precision);
    factors.weighted_right = backend.multiply(right, hessian);
    factors.squared_norm =
        backend.dot(backend.multiply(left, Transpose::Yes, left, Transpose::No),
                    backend.multiply(factors.weighted_right, Transpose::No, right, Transpose::Yes));
}

double cross_term(const Buffer& e, const LowRankBuffers& factors, Backend& backend)
{
    if (factors.left.empty())
        return 0.0;
    return backend.dot(backend.multiply(e, Transpose::No, factors.weighted_right, Transpose::Yes),
                       backend.convert(factors.left, e.precision()));
}

double objective_of(const Buffer& a, double whole, const LowRankBuffers& factors, const Buffer& hessian,
                    Backend& backend)
{
    if (factors.left.empty())
        return whole;
    const double objective = whole - 2.0 * cross_term(a, factors, backend) + factors.squared_norm;
    if (objective >= k_least_share * std::max(whole, factors.squared_norm))
        return objective;
    // Nearly everything cancels: from the matrix that is left, which has no large part.
    Buffer rest = backend.copy(a);
    backend.gemm(-1.0, backend.convert(factors.left, a.precision()), Transpose::No,
                 backend.convert(factors.right, a.precision()), Transpose::No, 1.0, rest);
    return std::max(0.0, backend.dot(backend.multiply(rest, hessian), rest));
}

} // namespace rankscope
