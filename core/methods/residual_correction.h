// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/linalg/weighted_low_rank.h"
#include "core/methods/method.h"

namespace rankscope {

/// Which norm of the error a correction makes least: ‖(W − Q − L·R)·S‖_F (methods-learned §4.1).
struct CorrectionMetric {
    VectorD scale;                    ///< S = diag(scale); empty: see hessian
    const MatrixD* hessian = nullptr; ///< S·Sᵀ = H; null and no scale: S = I
};

/// The rank-r L·R that is best for `target` in the metric: with U_r the leading left singular vectors of
/// target·S, L = U_r and R = U_rᵀ·target. S need not be invertible.
LowRankBuffers best_low_rank(const Buffer& target, const CorrectionMetric& metric, Index rank,
                             Backend& backend);
/// On the host, both factors of one norm.
LowRank balanced(const LowRankBuffers& factors, Backend& backend);

/// Parameters of all methods that round first and correct afterwards: the grid, `rounding`, `rank` and what
/// the rounding takes.
std::vector<ParameterInfo> correction_parameters();
/// Refuses chains of a rounding and a codebook that it cannot round to. MethodInfo::check of these methods.
Status check_correction(const Parameters& parameters);

/// Q by `rounding` (nearest, gptq, lrq or flexround), then the rank-r L·R that is best for W − Q in the given metric. One
/// theorem serves them all: with U_r the leading left singular vectors of (W − Q)·S, L = U_r and R = U_rᵀ·(W
/// − Q), balanced.
Result<Decomposition> correct_rounding(const LayerProblem& problem, const Parameters& parameters,
                                       const CorrectionMetric& metric, Backend& backend, Monitor& monitor);

/// W itself by its best L·R in the metric, without a Q: rank-only compression by `rank`.
Result<Decomposition> truncate_weight(const LayerProblem& problem, const Parameters& parameters,
                                      const CorrectionMetric& metric, Backend& backend, Monitor& monitor);

} // namespace rankscope
