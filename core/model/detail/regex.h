// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace rankscope::detail {

struct TextRange {
    std::size_t begin = 0;
    std::size_t end = 0;
    bool is_match = false;
};

/// A Unicode-aware regular expression (PCRE2 with UTF and UCP). Const and thread-safe.
class Regex {
public:
    /// Errors: BadInput with PCRE2's message.
    static Result<Regex> compile(std::string_view pattern);

    /// Cuts `text` (valid UTF-8) into matches and what lies between them; empty pieces are left out.
    /// Errors: BadInput when the pattern needs more steps than are granted (a pattern from a foreign file may
    /// be evil).
    Result<std::vector<TextRange>> cut(std::string_view text) const;

private:
    struct Program;
    std::shared_ptr<const Program> program_;
};

/// The same for a fixed text instead of a pattern.
std::vector<TextRange> cut_at(std::string_view text, std::string_view needle);

} // namespace rankscope::detail
