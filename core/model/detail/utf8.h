// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rankscope::detail {

/// One code point, or the longest run of bytes that begins like one and is none.
struct Utf8Step {
    std::size_t length = 0; ///< at least 1
    bool valid = false;
    char32_t code_point = 0;
};

/// What stands at `position` (< text.size()): no surrogates, no overlong forms, nothing above U+10FFFF.
Utf8Step utf8_step(std::string_view text, std::size_t position);
/// Offset of the first byte that belongs to no valid code point.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);
/// Invalid runs replaced by U+FFFD, one for each (as Unicode 15, section 3.9, and most decoders do).
std::string repaired_utf8(std::string_view bytes);
/// Bytes of the character whose first byte this is; the text is known to be valid.
inline std::size_t utf8_length(char first)
{
    const auto byte = static_cast<unsigned char>(first);
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
void append_utf8(std::string& text, char32_t code_point);

/// Unicode White_Space; letters, marks, numbers and connectors; the categories Nd, Nl, No.
bool is_space(char32_t code_point);
bool is_word(char32_t code_point);
bool is_numeric(char32_t code_point);
/// Canonical composition (NFC) of a valid text.
std::string composed(std::string_view text);

} // namespace rankscope::detail
