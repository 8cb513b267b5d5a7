// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace rankscope {

/// 32-bit words that `count` values of `bits` bits take as one dense stream: value k lies at bits k·bits …,
/// lowest bit of the lowest word first (docs/formats.md).
constexpr std::int64_t packed_words(std::int64_t count, int bits) { return (count * bits + 31) / 32; }

/// Value `index` of such a stream (bits ≤ 16) whose words lie `stride` words apart: 1 along a row, the row's
/// length down a column. No alignment is needed.
inline std::uint32_t packed_value(const std::byte* stream, std::int64_t index, int bits,
                                  std::int64_t stride = 1)
{
    const std::int64_t bit = index * bits;
    const auto word = [&](std::int64_t at) {
        std::uint32_t value = 0;
        std::memcpy(&value, stream + at * stride * 4, sizeof value);
        return value;
    };
    const auto offset = static_cast<int>(bit % 32);
    std::uint64_t held = word(bit / 32);
    if (offset + bits > 32)
        held |= static_cast<std::uint64_t>(word(bit / 32 + 1)) << 32;
    return static_cast<std::uint32_t>(held >> offset & ((std::uint64_t{1} << bits) - 1));
}

} // namespace rankscope
