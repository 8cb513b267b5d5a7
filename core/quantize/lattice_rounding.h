// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"
#include "core/compute/backend.h"
#include "core/compute/e8p.h"
#include "core/quantize/quantized_matrix.h"

#include <vector>

namespace rankscope {

/// A weight on the lattice: value = scale · point.
struct LatticeLayer {
    LatticeBuffers rounded; ///< codes of the groups as they lie in a row
    int bits = 2;
    float scale = 0.0F; ///< 0: a matrix without weight
};
E8Matrix to_host(const LatticeLayer& layer, Backend& backend);
/// Only the codes come over.
QuantizedMatrix to_quantized(const LatticeLayer& layer, Backend& backend);

/// Rounds to the E8P lattice with feedback against H: block LDLQ of width 8 (methods-joint §2.2). H = U·D·Uᵀ
/// with U block unit upper triangular and D block diagonal. Blocks are the lattice's groups of eight inputs,
/// so that codes stay where storage expects them; with block order they go by falling mean of their diagonal,
/// ties by index.
class LatticeFeedback {
public:
    /// `hessian` damped already. Errors: BadInput (see reversed_cholesky).
    static Result<LatticeFeedback> make(const MatrixD& hessian, bool block_order, Backend& backend,
                                        Monitor& monitor);

    /// bits: 2 or 4. One scale, RMS(w) / 1.03; a matrix without weight has scale 0. On the host cut into
    /// blocks of rows, so that a cancel is soon heard.
    LatticeLayer round(const Buffer& weight, int bits, Backend& backend, Monitor& monitor) const;

    const MatrixD& factor() const { return factor_; }                  ///< U in the order of the sweep
    const std::vector<MatrixD>& diagonal() const { return diagonal_; } ///< D in the order of the sweep
    bool damped_further() const { return damped_further_; } ///< U·D·Uᵀ is H with something added

private:
    LatticeFeedback() = default;

    std::vector<Index> order_;   // position in the sweep → column
    std::vector<Index> inverse_; // column → position; empty when the order is that of the columns
    std::vector<Index> starts_;  // position of each block's first column, and the number of columns
    MatrixD factor_;
    Buffer single_; // factor_ in float32
    std::vector<MatrixD> diagonal_;
    bool damped_further_ = false;
};

/// Coordinate descent over the blocks with the scale kept (§2.3): a block takes the lattice point nearest to
/// its conditional optimum where that lowers tr((W−Q)·H·(W−Q)ᵀ), row by row; it never rises. `hessian`:
/// float32 or float64.
LatticeLayer tune_lattice(const Buffer& w, const LatticeLayer& start, const Buffer& hessian, int passes,
                          Backend& backend, Monitor& monitor);

} // namespace rankscope
