// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"
#include "core/compute/uniform_grid.h"
#include "core/tensor/matrix.h"

namespace rankscope {

/// A matrix on a uniform grid in host memory: codes with the zero point subtracted, one scale and zero per
/// row and group (with one scale per matrix it is repeated in every row). Without codes it stands for a zero
/// matrix, as methods that keep only a low-rank part leave it.
struct QuantizedMatrix {
    UniformGrid grid;
    CodeMatrix codes; ///< out × in
    Matrix scales;    ///< out × groups
    Matrix zeros;     ///< out × groups, 0 when symmetric

    bool empty() const { return codes.size() == 0; }
    Matrix dequantize() const; ///< scales ⊙ codes
    /// Exact storage in bits per weight: b + 16/g (symmetric) or b + (16 + b)/g, with the true number of
    /// groups.
    double bits_per_weight() const;
};

QuantizedMatrix to_host(const RoundedBuffers& rounded, const GridBuffers& grid, Backend& backend);

} // namespace rankscope
