// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <functional>
#include <string>
#include <vector>

namespace rankscope::detail {

/// How far the steps of a tokenizer.json may make a text grow together: ten harmless replacements from a
/// foreign file could turn a line into gigabytes.
class Growth {
public:
    /// Accounts for a step that turns `from` bytes into at most `to`. Errors: BadInput when it becomes too
    /// much.
    Status take(std::size_t from, std::size_t to);

private:
    double factor_ = 1.0;
    int steps_ = 0;
};

/// The normalizer of a tokenizer.json: steps that rewrite a stretch of text in place.
class Normalizer {
public:
    /// Null means none. Known: Prepend, Replace (of a fixed text), NFC, Sequence. Errors: BadInput naming the
    /// type.
    static Result<Normalizer> parse(const Json& json);

    void apply(std::string& text) const;

private:
    Status add(const Json& json);

    std::vector<std::function<void(std::string&)>> steps_;
    Growth growth_;
};

/// `text` with each `needle` (not empty) replaced.
std::string replaced(std::string_view text, std::string_view needle, std::string_view content);
/// The fixed text of {"String": …}. Errors: BadInput for patterns.
Result<std::string> fixed_pattern(const Json& pattern);
/// Whether the step is a Replace with all that it needs.
bool is_replace(const Json& step);
/// What such a step does to a text. Errors: BadInput for patterns, and where texts would grow too much.
Result<std::function<void(std::string&)>> replace_step(const Json& step, Growth& growth);

} // namespace rankscope::detail
