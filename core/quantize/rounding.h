// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"
#include "core/compute/backend.h"

namespace rankscope {

/// H ← ½(H + Hᵀ); dead channels (H_jj = 0) get H_jj = 1 and their weight column 0; then H += rho·mean(diag H)·I
/// (methods-joint §2.1). Both in place; returns the number of dead channels.
Index prepare_hessian(MatrixD& hessian, Matrix& weight, double rho);

/// Rounds W to a fitted grid with LDLQ feedback against H (methods-joint §2.2), which equals GPTQ in the same order.
struct FeedbackRounding {
    bool act_order = false;  ///< columns by falling diag(H), ties by index; groups stay static
    int tune_passes = 0;     ///< coordinate descent afterwards (§2.3)
};

/// The factor for round_with_feedback, reusable while H does not change: H = U·D·Uᵀ, permuted first with act_order.
class FeedbackFactor {
public:
    /// `hessian` damped already. If Cholesky fails, damping ×10 up to 1 is tried and said through the monitor.
    static Result<FeedbackFactor> make(const MatrixD& hessian, bool act_order, Backend& backend, Monitor& monitor);
    RoundedBuffers round(const Buffer& w, const GridBuffers& grid, Backend& backend) const;

private:
    FeedbackFactor() = default;
    std::vector<Index> order_;   // position → column; empty: identity
    std::vector<Index> inverse_; // column → position
    Buffer factor_;              // U, float32
};

/// One coordinate-descent pass over the columns with the grid frozen; never raises tr((W−Q)·H·(W−Q)ᵀ).
RoundedBuffers tune_rounding(const Buffer& w, const RoundedBuffers& start, const MatrixD& hessian,
                             const GridBuffers& grid, int passes, Backend& backend, Monitor& monitor);

} // namespace rankscope
