// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/bit_stream.h"
#include "core/tensor/matrix.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace rankscope {

/// rows × cols unsigned values below 2^bits (bits ≤ 16) as one dense bit stream a row: value k lies at bits
/// k·bits … of its row, lowest bit and lowest byte first; every row starts at a new word.
std::vector<std::byte> pack_rows(std::span<const std::uint16_t> values, Index rows, Index cols, int bits);
/// packed_value() of bit_stream.h is the way back.

/// rows × cols 32-bit words with rows and columns exchanged: turns streams along rows into streams down
/// columns.
std::vector<std::byte> transposed_words(std::span<const std::byte> words, Index rows, Index cols);

} // namespace rankscope
