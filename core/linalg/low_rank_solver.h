// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/random.h"
#include "core/linalg/weighted_low_rank.h"

namespace rankscope {

enum class LowRankMethod : std::uint8_t {
    Subspace, ///< randomized subspace iteration, from the last solution's space; exact where that is cheaper
    Exact,    ///< eigenvectors of the Gram matrix, in float64
};

/// Finds L·R of rank r near one matrix after another in the metric of one H (methods-joint §4.2, §4.5).
///
/// Subspace: Q ← orth(A·H·Aᵀ·Q) with half again as many columns as r, in float32, Rayleigh–Ritz in float64;
/// it ends when a step lowers the objective by less than 1e-4 of itself. A·H·Aᵀ = (A·C)·(A·C)ᵀ for any H =
/// C·Cᵀ, so that H itself serves instead of its Cholesky factor. Matrices that differ little, as in an
/// alternation, need two steps each. For sides up to 256 and for large ranks the exact way is taken: it is as
/// fast there.
class LowRankSolver {
public:
    /// `hessian`: n × n float64 on the backend. `rows` × n is the shape of the matrices to come.
    LowRankSolver(const Buffer& hessian, Index rows, Index rank, LowRankMethod method,
                  const RandomStream& random, Backend& backend);

    /// What A must come in, and what hessian() is: float32 for the subspace, float64 for the exact way.
    Precision precision() const { return precision_; }
    const Buffer& hessian() const { return hessian_; }

    /// `whole` = tr(A·H·Aᵀ), known to whoever iterates. With weighted_right and squared_norm. Throws
    /// Cancelled.
    LowRankBuffers solve(const Buffer& a, double whole, const Monitor& monitor);

private:
    LowRankBuffers solve_exactly(const Buffer& a) const;
    LowRankBuffers solve_in_subspace(const Buffer& a, double whole, const Monitor& monitor);

    Index rank_;
    Index width_ = 0; ///< columns of the subspace; 0: exact
    Precision precision_ = Precision::Float64;
    Buffer hessian_;
    Buffer basis_; ///< where the next iteration starts
    RandomStream random_;
    Backend& backend_;
};

/// tr(A·H·Bᵀ)-style sums from R·H: the objective of L·R for A, whose own norm is `whole`.
double objective_of(const Buffer& a, double whole, const LowRankBuffers& factors, const Buffer& hessian,
                    Backend& backend);
/// Fills weighted_right and squared_norm.
void add_products(LowRankBuffers& factors, const Buffer& hessian, Backend& backend);
/// tr(E·H·Lᵀ·Rᵀ) = ⟨E·(R·H)ᵀ, L⟩; 0 without factors.
double cross_term(const Buffer& e, const LowRankBuffers& factors, Backend& backend);

} // namespace rankscope
