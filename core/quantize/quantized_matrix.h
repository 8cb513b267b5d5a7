// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"
#include "core/compute/uniform_grid.h"
#include "core/tensor/matrix.h"

namespace rankscope {

/// A matrix on a uniform grid in host memory: codes with the zero point subtracted, one scale and zero per row and
/// group. bits = 0: nothing is quantised and `dense` holds the matrix (rank-only methods leave it empty = zero).
struct QuantizedMatrix {
    UniformGrid grid;
    CodeMatrix codes;  ///< out × in
    Matrix scales;     ///< out × groups
    Matrix zeros;      ///< out × groups, 0 when symmetric

    Matrix dequantize() const; ///< scales ⊙ codes
    /// Exact storage in bits per weight: b + 16/g (symmetric) or b + (16 + b)/g, with the true number of groups.
    double bits_per_weight() const;
};

QuantizedMatrix to_host(const RoundedBuffers& rounded, const GridBuffers& grid, Backend& backend);

} // namespace rankscope
