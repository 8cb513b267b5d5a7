// SPDX-License-Identifier: GPL-3.0-or-later
#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/model/detail/regex.h"

#include "core/model/detail/utf8.h"

#include <pcre2.h>

#include <array>
#include <new>
#include <string>

namespace rankscope::detail {
namespace {

constexpr std::size_t k_max_pattern = 65'536;
constexpr std::uint32_t k_max_steps = 20'000'000;
constexpr std::uint32_t k_max_heap_kib = 262'144;

std::string message_of(int code)
{
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
}

void add_range(std::vector<TextRange>& ranges, std::size_t begin, std::size_t end, bool is_match)
{
    if (begin < end)
        ranges.push_back({begin, end, is_match});
}

} // namespace

struct Regex::Program {
    struct Free {
        void operator()(pcre2_code* owned) const { pcre2_code_free(owned); }
        void operator()(pcre2_match_context* owned) const { pcre2_match_context_free(owned); }
        void operator()(pcre2_match_data* owned) const { pcre2_match_data_free(owned); }
    };
    std::unique_ptr<pcre2_code, Free> code;
    std::unique_ptr<pcre2_match_context, Free> context;

    /// One match from `start`; the JIT's small stack is no reason to fail.
    int match(std::string_view text, std::size_t start, pcre2_match_data* data) const
    {
        const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
        int found =
            pcre2_match(code.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, data, context.get());
        if (found == PCRE2_ERROR_JIT_STACKLIMIT)
            found = pcre2_match(code.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                                data, context.get());
        return found;
    }
};

Result<Regex> Regex::compile(std::string_view pattern)
{
    if (pattern.size() > k_max_pattern)
        return bad_input("the pattern has " + std::to_string(pattern.size()) + " bytes, more than the "
                         + std::to_string(k_max_pattern) + " that are accepted");
    int code = 0;
    PCRE2_SIZE offset = 0;
    auto program = std::make_shared<Program>();
    program->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
                                      nullptr));
    if (!program->code)
        return bad_input("the pattern is not understood at character " + std::to_string(offset) + " ("
                         + message_of(code) + ")");
    pcre2_jit_compile(program->code.get(),
                      PCRE2_JIT_COMPLETE); // where the JIT is missing, the interpreter serves
    program->context.reset(pcre2_match_context_create(nullptr));
    if (!program->context)
        throw std::bad_alloc();
    pcre2_set_match_limit(program->context.get(), k_max_steps);
    pcre2_set_heap_limit(program->context.get(), k_max_heap_kib);
    Regex result;
    result.program_ = std::move(program);
    return result;
}

Result<std::vector<TextRange>> Regex::cut(std::string_view text) const
{
    const std::unique_ptr<pcre2_match_data, Program::Free> data(
        pcre2_match_data_create_from_pattern(program_->code.get(), nullptr));
    if (!data)
        throw std::bad_alloc();
    std::vector<TextRange> ranges;
    std::size_t reached = 0;
    for (std::size_t start = 0; start < text.size();) {
        const int found = program_->match(text, start, data.get());
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return bad_input("the tokenizer's pattern could not be matched (" + message_of(found) + ")");
        const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
        const std::size_t begin = ends[0];
        const std::size_t end = ends[1];
        if (begin > end || begin < reached) // what \K could do
            return bad_input("the tokenizer's pattern matches backwards");
        add_range(ranges, reached, begin, false);
        add_range(ranges, begin, end, true);
        reached = end;
        // An empty match must not be found for ever.
        start = end > begin ? end : end < text.size() ? end + utf8_length(text[end]) : text.size();
    }
    add_range(ranges, reached, text.size(), false);
    return ranges;
}

std::vector<TextRange> cut_at(std::string_view text, std::string_view needle)
{
    std::vector<TextRange> ranges;
    std::size_t reached = 0;
    while (!needle.empty()) {
        const std::size_t found = text.find(needle, reached);
        if (found == std::string_view::npos)
            break;
        add_range(ranges, reached, found, false);
        add_range(ranges, found, found + needle.size(), true);
        reached = found + needle.size();
    }
    add_range(ranges, reached, text.size(), false);
    return ranges;
}

} // namespace rankscope::detail
