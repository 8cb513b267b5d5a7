// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/bit_packing.h"

#include <cassert>
#include <cstring>

namespace rankscope {

std::vector<std::byte> pack_rows(std::span<const std::uint16_t> values, Index rows, Index cols, int bits)
{
    assert(bits >= 1 && bits <= 16 && values.size() == static_cast<std::size_t>(rows * cols));
    const auto row_bytes = static_cast<std::size_t>(packed_words(cols, bits)) * 4;
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows) * row_bytes);
    const std::uint16_t* next = values.data();
    for (Index row = 0; row < rows; ++row) {
        std::byte* target = bytes.data() + static_cast<std::size_t>(row) * row_bytes;
        std::uint64_t pending = 0;
        int held = 0;
        for (Index col = 0; col < cols; ++col) {
            pending |= static_cast<std::uint64_t>(*next++) << held;
            for (held += bits; held >= 8; held -= 8) {
                *target++ = static_cast<std::byte>(pending & 0xFFU);
                pending >>= 8;
            }
        }
        if (held > 0)
            *target = static_cast<std::byte>(pending & 0xFFU);
    }
    return bytes;
}

std::vector<std::byte> transposed_words(std::span<const std::byte> words, Index rows, Index cols)
{
    constexpr std::size_t k_word = 4;
    assert(words.size() == static_cast<std::size_t>(rows * cols) * k_word);
    std::vector<std::byte> result(words.size());
    for (Index row = 0; row < rows; ++row) {
        for (Index col = 0; col < cols; ++col)
            std::memcpy(result.data() + static_cast<std::size_t>(col * rows + row) * k_word,
                        words.data() + static_cast<std::size_t>(row * cols + col) * k_word, k_word);
    }
    return result;
}

} // namespace rankscope
