// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/block_format.h"
#include "core/tensor/dtype.h"
#include "core/tensor/matrix.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

using Shape = std::vector<std::int64_t>; ///< outermost first; empty for a scalar

std::string to_string(const Shape& shape); ///< "[4096, 11008]"
std::int64_t element_count(const Shape& shape);

/// Borrowed bytes of one tensor with their type and shape; valid as long as the mapping it points into.
struct TensorView {
    DType dtype = DType::F32;
    Shape shape;
    std::span<const std::byte> bytes;
    const BlockLayout* block = nullptr; ///< set for GGUF's block types; dtype then says nothing

    /// Decoded to float32. Rank 1 becomes one row; rank > 2 is flattened to (first × rest).
    Matrix to_matrix() const;
    /// Row `row` of a matrix decoded to float32; `target` holds shape[1] values.
    void decode_row(std::int64_t row, float* target) const;
};

} // namespace rankscope
