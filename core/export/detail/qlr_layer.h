// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/qlr_format.h"
#include "core/export/detail/stored_floats.h"
#include "core/methods/method.h"
#include "core/model/architecture.h"
#include "core/run/run.h"

#include <map>
#include <string>
#include <vector>

namespace rankscope {

/// Q, L and R of a layer as hf-qlr stores them.
struct PackedLayer {
    Index out = 0;
    Index in = 0;
    int bits = 0; ///< 0: there is no Q
    Index group_width = 0;
    bool symmetric = false;
    Index rank = 0;
    std::map<std::string, PackedTensor> tensors; ///< by suffix

    std::uint64_t bytes() const;
};

/// Usage error, with the reason, for what the format has no place for: lattice codes, rotated layers, factors
/// of fewer than 16 bits.
Status check_packable(const Decomposition& decomposition);

/// Codes become unsigned (plus the zero point, or plus 2^(bits−1) when symmetric) and are packed; scales and
/// factors are stored as F16, as the sizes promise, or as F32 where F16 would lose more than its rounding.
/// Errors: BadInput (shape, a code outside its grid, values that are not finite).
Result<PackedLayer> pack_layer(const Decomposition& decomposition, const LinearLayer& layer);

/// Adds to a layer's entry in the schema how it is laid out.
void describe_layout(const PackedLayer& packed, Json& entry);

/// The layer as exact as it can be after storing: scales and factors rounded to the type that pack_layer
/// chose.
Decomposition rounded_to_stored(const Decomposition& decomposition, const PackedLayer& packed);

} // namespace rankscope
