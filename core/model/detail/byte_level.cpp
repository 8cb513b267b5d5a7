// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/byte_level.h"

#include "core/model/detail/utf8.h"

#include <array>
#include <charconv>

namespace rankscope::detail {
namespace {

struct Letters {
    std::array<std::string, 256> of_byte;
    std::array<int, 324> byte_of{}; ///< by code point; −1: no letter

    Letters()
    {
        byte_of.fill(-1);
        char32_t next = 0x100;
        for (unsigned byte = 0; byte < 256; ++byte) {
            const bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
            const char32_t letter = plain ? byte : next++;
            append_utf8(of_byte[byte], letter);
            byte_of[letter] = static_cast<int>(byte);
        }
    }
};

const Letters& letters()
{
    static const Letters k_letters;
    return k_letters;
}

} // namespace

void append_byte_letters(std::string& target, std::string_view bytes)
{
    const Letters& table = letters();
    for (const char byte : bytes)
        target += table.of_byte[static_cast<unsigned char>(byte)];
}

std::string bytes_of_letters(std::string_view token)
{
    const Letters& table = letters();
    std::string bytes;
    for (std::size_t i = 0; i < token.size();) {
        const Utf8Step step = utf8_step(token, i);
        if (!step.valid || step.code_point >= table.byte_of.size() || table.byte_of[step.code_point] < 0)
            return std::string(token);
        bytes += static_cast<char>(table.byte_of[step.code_point]);
        i += step.length;
    }
    return bytes;
}

std::string byte_token(unsigned char byte)
{
    static constexpr char k_digits[] = "0123456789ABCDEF";
    return {'<', '0', 'x', k_digits[byte >> 4], k_digits[byte & 15], '>'};
}

int byte_of_token(std::string_view token)
{
    if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>')
        return -1;
    int value = 0;
    const auto [end, problem] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
    return problem == std::errc{} && end == token.data() + 5 ? value : -1;
}

} // namespace rankscope::detail
