// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"
#include "core/compute/backend.h"
#include "core/quantize/e8p.h"

#include <vector>

namespace rankscope {

/// Rounds to the E8P lattice with feedback against H: block LDLQ of width 8 (methods-joint §2.2). H = U·D·Uᵀ
/// with U block unit upper triangular and D block diagonal. Blocks are the lattice's groups of eight inputs,
/// so that codes stay where storage expects them; with block order they go by falling mean of their diagonal,
/// ties by index. The factorization runs on the backend, the sweep on the host's threads.
class LatticeFeedback {
public:
    /// `hessian` damped already. Errors: BadInput (see reversed_cholesky).
    static Result<LatticeFeedback> make(const MatrixD& hessian, bool block_order, Backend& backend,
                                        Monitor& monitor);

    /// bits: 2 or 4. One scale, RMS(w) / 1.03; a matrix without weight has scale 0.
    E8Matrix round(const Matrix& w, int bits, Monitor& monitor) const;

    const MatrixD& factor() const { return factor_; }                  ///< U in the order of the sweep
    const std::vector<MatrixD>& diagonal() const { return diagonal_; } ///< D in the order of the sweep
    bool damped_further() const { return damped_further_; } ///< U·D·Uᵀ is H with something added

private:
    struct Task;

    LatticeFeedback() = default;
    void sweep(Task& task, Index first_row, Index count, Monitor& monitor) const;
    static void round_rows(Task& task, Matrix& goal, Index first_row, Index block);

    std::vector<Index> order_;  // position in the sweep → column
    std::vector<Index> starts_; // position of each block's first column, and the number of columns
    MatrixD factor_;
    Matrix single_; // factor_ in float32
    std::vector<MatrixD> diagonal_;
    bool damped_further_ = false;
};

/// Coordinate descent over the blocks with the scale kept (§2.3): a block takes the lattice point nearest to
/// its conditional optimum where that lowers tr((W−Q)·H·(W−Q)ᵀ), row by row; it never rises.
E8Matrix tune_lattice(const Matrix& w, E8Matrix start, int bits, const MatrixD& hessian, int passes,
                      Monitor& monitor);

} // namespace rankscope
