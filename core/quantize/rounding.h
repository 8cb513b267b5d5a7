// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"
#include "core/compute/backend.h"

#include <vector>

namespace rankscope {

/// H ← ½(H + Hᵀ); dead channels (H_jj = 0) get H_jj = 1 and their weight column 0; then H += rho·mean(diag
/// H)·I (methods-joint §2.1). Both in place; returns the number of dead channels.
Index prepare_hessian(MatrixD& hessian, Matrix& weight, double rho);

struct ReversedFactor {
    MatrixD lower;
    double damping = 0.0; ///< share of the mean diagonal that had to be added
};
/// C lower triangular with C·Cᵀ = the Hessian whose rows and columns are taken in the reverse of `order`:
/// read backwards it is the upper factor that a sweep in `order` needs. If Cholesky fails, further damping of
/// 0.01, 0.1 and 1 of the mean diagonal is tried and said through the monitor. Errors: BadInput.
Result<ReversedFactor> reversed_cholesky(const MatrixD& hessian, const std::vector<Index>& order,
                                         Backend& backend, Monitor& monitor);

/// Backend::fit_grid, cut into blocks of rows where a clip search makes it long, so that a cancel is soon
/// heard.
GridBuffers fit_grid(const Buffer& w, const UniformGrid& grid, Backend& backend, Monitor& monitor);

/// Rounds W to a fitted grid with LDLQ feedback against H (methods-joint §2.2), which equals GPTQ in the same
/// order. The factor H = U·D·Uᵀ serves as long as H does not change; with act_order columns go by falling
/// diag(H), ties by index, and keep the group they belong to (static groups).
class FeedbackFactor {
public:
    /// `hessian` damped already. If Cholesky fails, further damping of 0.01, 0.1 and 1 of the mean diagonal
    /// is tried and said through the monitor. Errors: BadInput (H is not finite, or none of these makes it
    /// positive definite).
    static Result<FeedbackFactor> make(const MatrixD& hessian, bool act_order, Backend& backend,
                                       Monitor& monitor);
    /// From the factor of reversed_cholesky(hessian, order) that the caller has already.
    static FeedbackFactor from_reversed(const ReversedFactor& factored, std::vector<Index> order,
                                        Backend& backend);

    /// Large matrices are cut into blocks of rows, which are independent, so that a cancel is soon heard.
    RoundedBuffers round(const Buffer& w, const GridBuffers& grid, Backend& backend, Monitor& monitor) const;

    const Buffer& factor() const { return factor_; } ///< U in the order of the sweep: unit upper triangular
    const VectorD& diagonal() const { return diagonal_; }      ///< D in the order of the sweep
    bool damped_further() const { return damped_further_; }    ///< U·D·Uᵀ is H with something added
    const std::vector<Index>& order() const { return order_; } ///< position in the sweep → column

private:
    FeedbackFactor() = default;
    std::vector<Index> order_;
    std::vector<Index> inverse_; // column → position; empty when the order is that of the columns
    Buffer factor_;              // float32
    VectorD diagonal_;
    bool damped_further_ = false;
};

/// Rows of `cols` inputs that the host works on between two questions whether to stop: some tens of milliseconds.
Index rows_between_questions(Index cols);

/// Backend::tune_codes, cut into blocks of rows on the host so that a cancel is soon heard. `hessian`: float32 or
/// float64.
RoundedBuffers tune_rounding(const Buffer& w, const RoundedBuffers& start, const Buffer& hessian,
                             const GridBuffers& grid, int passes, Backend& backend, Monitor& monitor);

} // namespace rankscope
