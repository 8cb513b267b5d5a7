// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/quantize/quantized_matrix.h"
#include "core/tensor/block_format.h"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace rankscope {

/// The smallest of GGUF's block formats that holds the codes of q as they are (formats.md §2): the K type
/// that they were rounded to, else Q4_0 for codes −8 … 7, Q4_1 for up to 4 bits with zero points, then Q5_0,
/// Q5_1 and Q8_0. None: another codebook, groups that do not end at a block's border, scales that F16 does
/// not hold, or 8 bits with zero points.
std::optional<BlockFormat> exact_block(const QuantizedMatrix& q);
/// Whether that format holds these codes as they are (a matrix that a smaller format holds fits larger ones,
/// too).
bool fits_block(const QuantizedMatrix& q, BlockFormat format);

/// The blocks, row r of them made from row row_order[r] of q (empty: as they are). Scales are rounded to F16,
/// and with Q4_1 and Q5_1 the least value −scale · zero point, too; K types are written as they are.
std::vector<std::byte> encode_blocks(const QuantizedMatrix& q, BlockFormat format,
                                     std::span<const Index> row_order = {});

/// What q is after that, by the rule of the format and not by its bytes: code · scale, or code · scale +
/// least value.
Matrix stored_values(const QuantizedMatrix& q, BlockFormat format);

} // namespace rankscope
