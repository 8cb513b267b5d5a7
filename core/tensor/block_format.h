// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace rankscope {

/// GGUF's block types: a fixed number of consecutive inputs share scales inside one block of bytes. The
/// numbers are the file format's own.
enum class BlockFormat : std::uint32_t {
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
};

struct BlockLayout {
    BlockFormat format;
    std::string_view name; ///< "Q4_K"
    std::size_t elements;  ///< per block: 32 or 256
    std::size_t bytes;     ///< per block
};

/// Null for a number that is no block type known here.
const BlockLayout* block_layout(std::uint32_t format);
const BlockLayout* block_layout(std::string_view name);

/// Decodes `blocks` blocks to float32, equal to the reference implementation of the format bit for bit.
void decode_blocks(BlockFormat format, const std::byte* source, std::size_t blocks, float* target);

} // namespace rankscope
