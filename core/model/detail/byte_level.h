// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string>
#include <string_view>

namespace rankscope::detail {

/// GPT-2's letters for bytes: 33–126, 161–172 and 174–255 stand for themselves, the other 68 are U+0100 and
/// on.
void append_byte_letters(std::string& target, std::string_view bytes);
/// The bytes that a token's letters stand for; a token with any other character stands for its own UTF-8
/// bytes.
std::string bytes_of_letters(std::string_view token);

/// "<0x0A>" for a byte, and back: −1 when the token is no such name.
std::string byte_token(unsigned char byte);
int byte_of_token(std::string_view token);

} // namespace rankscope::detail
