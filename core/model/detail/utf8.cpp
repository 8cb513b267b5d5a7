// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/utf8.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <new>

namespace rankscope::detail {
namespace {

constexpr char k_replacement[] = "\xEF\xBF\xBD";

utf8proc_category_t category(char32_t code_point)
{
    return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

/// Range of the second byte for a lead byte and the number of bytes in all (Unicode 15, table 3-7).
struct Form {
    std::size_t length;
    unsigned char second_low;
    unsigned char second_high;
};

Form form_of(unsigned char lead)
{
    if (lead < 0xC2 || lead > 0xF4)
        return {0, 0, 0};
    if (lead < 0xE0)
        return {2, 0x80, 0xBF};
    if (lead < 0xF0)
        return {3, static_cast<unsigned char>(lead == 0xE0 ? 0xA0 : 0x80),
                static_cast<unsigned char>(lead == 0xED ? 0x9F : 0xBF)};
    return {4, static_cast<unsigned char>(lead == 0xF0 ? 0x90 : 0x80),
            static_cast<unsigned char>(lead == 0xF4 ? 0x8F : 0xBF)};
}

} // namespace

Utf8Step utf8_step(std::string_view text, std::size_t position)
{
    const auto lead = static_cast<unsigned char>(text[position]);
    if (lead < 0x80)
        return {1, true, lead};
    const Form form = form_of(lead);
    if (form.length == 0)
        return {1, false, 0};
    char32_t code_point = lead & (0xFFU >> (form.length + 1));
    for (std::size_t i = 1; i < form.length; ++i) {
        if (position + i >= text.size())
            return {i, false, 0};
        const auto byte = static_cast<unsigned char>(text[position + i]);
        const unsigned char low = i == 1 ? form.second_low : 0x80;
        const unsigned char high = i == 1 ? form.second_high : 0xBF;
        if (byte < low || byte > high)
            return {i, false, 0};
        code_point = code_point << 6 | (byte & 0x3FU);
    }
    return {form.length, true, code_point};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text)
{
    for (std::size_t i = 0; i < text.size();) {
        const Utf8Step step = utf8_step(text, i);
        if (!step.valid)
            return i;
        i += step.length;
    }
    return std::nullopt;
}

std::string repaired_utf8(std::string_view bytes)
{
    std::string text;
    text.reserve(bytes.size());
    for (std::size_t i = 0; i < bytes.size();) {
        const Utf8Step step = utf8_step(bytes, i);
        text += step.valid ? bytes.substr(i, step.length) : std::string_view(k_replacement);
        i += step.length;
    }
    return text;
}

void append_utf8(std::string& text, char32_t code_point)
{
    const auto add = [&text](std::uint32_t byte) { text += static_cast<char>(byte); };
    if (code_point < 0x80) {
        add(code_point);
    } else if (code_point < 0x800) {
        add(0xC0U | code_point >> 6);
        add(0x80U | (code_point & 0x3FU));
    } else if (code_point < 0x10000) {
        add(0xE0U | code_point >> 12);
        add(0x80U | (code_point >> 6 & 0x3FU));
        add(0x80U | (code_point & 0x3FU));
    } else {
        add(0xF0U | code_point >> 18);
        add(0x80U | (code_point >> 12 & 0x3FU));
        add(0x80U | (code_point >> 6 & 0x3FU));
        add(0x80U | (code_point & 0x3FU));
    }
}

bool is_space(char32_t code_point)
{
    if ((code_point >= 0x09 && code_point <= 0x0D) || code_point == 0x85)
        return true;
    const auto kind = category(code_point);
    return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL || kind == UTF8PROC_CATEGORY_ZP;
}

bool is_word(char32_t code_point)
{
    const auto kind = category(code_point);
    return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ND) || kind == UTF8PROC_CATEGORY_PC;
}

bool is_numeric(char32_t code_point)
{
    const auto kind = category(code_point);
    return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

std::string composed(std::string_view text)
{
    utf8proc_uint8_t* result = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
    if (size < 0) // the text is valid, so only memory can be missing
        throw std::bad_alloc();
    return {reinterpret_cast<const char*>(result), static_cast<std::size_t>(size)};
}

} // namespace rankscope::detail
