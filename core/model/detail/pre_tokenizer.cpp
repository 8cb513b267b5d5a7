// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/pre_tokenizer.h"

#include "core/model/detail/byte_level.h"
#include "core/model/detail/regex.h"
#include "core/model/detail/steps.h"
#include "core/model/detail/utf8.h"

#include <algorithm>
#include <optional>

namespace rankscope::detail {
namespace {

/// GPT-2's words: contractions, then runs of letters, numbers or signs with one space in front, then white
/// space.
constexpr char k_gpt2_words[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// What becomes of a match.
enum class Behavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous };

std::optional<Behavior> behavior_from(std::string_view name)
{
    static constexpr std::pair<std::string_view, Behavior> k_names[] = {
        {"Isolated", Behavior::Isolated},
        {"Removed", Behavior::Removed},
        {"MergedWithPrevious", Behavior::MergedWithPrevious},
        {"MergedWithNext", Behavior::MergedWithNext},
        {"Contiguous", Behavior::Contiguous}};
    for (const auto& [text, behavior] : k_names) {
        if (text == name)
            return behavior;
    }
    return std::nullopt;
}

/// Each match joins what stands before it; a match after a match stays alone.
std::vector<TextRange> merge_backwards(const std::vector<TextRange>& ranges)
{
    std::vector<TextRange> merged;
    bool after_match = false;
    for (const TextRange& range : ranges) {
        if (range.is_match && !after_match && !merged.empty())
            merged.back().end = range.end;
        else
            merged.push_back(range);
        after_match = range.is_match;
    }
    return merged;
}

std::vector<TextRange> merge_forwards(const std::vector<TextRange>& ranges)
{
    std::vector<TextRange> merged; // from the back
    bool before_match = false;
    for (std::size_t i = ranges.size(); i-- > 0;) {
        if (ranges[i].is_match && !before_match && !merged.empty())
            merged.back().begin = ranges[i].begin;
        else
            merged.push_back(ranges[i]);
        before_match = ranges[i].is_match;
    }
    std::reverse(merged.begin(), merged.end());
    return merged;
}

std::vector<TextRange> arrange(std::vector<TextRange> ranges, Behavior behavior)
{
    switch (behavior) {
    case Behavior::Isolated:
        return ranges;
    case Behavior::Removed:
        std::erase_if(ranges, [](const TextRange& range) { return range.is_match; });
        return ranges;
    case Behavior::MergedWithPrevious:
        return merge_backwards(ranges);
    case Behavior::MergedWithNext:
        return merge_forwards(ranges);
    case Behavior::Contiguous:
        break;
    }
    std::vector<TextRange> merged;
    for (const TextRange& range : ranges) {
        if (!merged.empty() && merged.back().is_match == range.is_match)
            merged.back().end = range.end;
        else
            merged.push_back(range);
    }
    return merged;
}

std::vector<TextRange> cut_at_digits(std::string_view text)
{
    std::vector<TextRange> ranges;
    for (std::size_t i = 0; i < text.size();) {
        const Utf8Step step = utf8_step(text, i);
        const bool digit = is_numeric(step.code_point);
        if (!digit && !ranges.empty() && !ranges.back().is_match)
            ranges.back().end = i + step.length;
        else
            ranges.push_back({i, i + step.length, digit});
        i += step.length;
    }
    return ranges;
}

/// Replaces each piece by what `cut` makes of it.
template <class Cut>
Status cut_pieces(Pieces& pieces, const Cut& cut)
{
    std::vector<std::string> texts;
    for (const std::string& text : pieces.texts) {
        const Result<std::vector<TextRange>> ranges = cut(text);
        if (!ranges)
            return ranges.error();
        for (const TextRange& range : *ranges)
            texts.push_back(text.substr(range.begin, range.end - range.begin));
    }
    pieces.texts = std::move(texts);
    return {};
}

} // namespace

Result<PreTokenizer> PreTokenizer::parse(const Json& json)
{
    PreTokenizer result;
    const auto added =
        for_each_step(json, "pretokenizers", [&result](const Json& step) { return result.add(step); });
    if (!added)
        return added.error().in("pre_tokenizer");
    return result;
}

Status PreTokenizer::apply(Pieces& pieces) const
{
    for (const Step& step : steps_) {
        if (auto done = step(pieces); !done)
            return done;
    }
    return {};
}

Status PreTokenizer::add(const Json& json)
{
    const std::string type = json["type"].string();
    if (auto taken = growth_.take(1, 1); !taken)
        return taken;
    if (type == "ByteLevel")
        return add_byte_level(json);
    if (type == "Split")
        return add_split(json);
    if (type == "Metaspace")
        return add_metaspace(json);
    if (type == "Digits") {
        const Behavior behavior =
            json["individual_digits"].boolean() ? Behavior::Isolated : Behavior::Contiguous;
        steps_.push_back([behavior](Pieces& pieces) {
            return cut_pieces(pieces, [behavior](const std::string& text) -> Result<std::vector<TextRange>> {
                return arrange(cut_at_digits(text), behavior);
            });
        });
        return {};
    }
    return bad_input(
        "\"" + type
        + "\" is not known or not complete; known: ByteLevel, Split, Digits, Metaspace, Sequence");
}

Status PreTokenizer::add_byte_level(const Json& json)
{
    if (auto taken = growth_.take(1, 2); !taken) // a byte's letter has two bytes at most
        return taken;
    if (json["add_prefix_space"].boolean(true)) {
        if (auto taken = growth_.take(1, 2); !taken)
            return taken;
        steps_.push_back([](Pieces& pieces) -> Status {
            for (std::string& text : pieces.texts) {
                if (!text.starts_with(' '))
                    text.insert(text.begin(), ' ');
            }
            return {};
        });
    }
    if (json["use_regex"].boolean(true)) {
        auto words = Regex::compile(k_gpt2_words);
        if (!words)
            return words.error();
        steps_.push_back([words = std::move(*words)](Pieces& pieces) {
            return cut_pieces(pieces, [&words](const std::string& text) { return words.cut(text); });
        });
    }
    steps_.push_back([](Pieces& pieces) -> Status {
        for (std::string& text : pieces.texts) {
            std::string letters;
            append_byte_letters(letters, text);
            text = std::move(letters);
        }
        return {};
    });
    return {};
}

Status PreTokenizer::add_split(const Json& json)
{
    const auto behavior = behavior_from(json["behavior"].string());
    if (!behavior)
        return bad_input("the behavior \"" + json["behavior"].string() + "\" is not known", "Split");
    std::function<Result<std::vector<TextRange>>(std::string_view)> cut;
    if (const std::string* pattern = json["pattern"]["Regex"].string_if()) {
        auto regex = Regex::compile(*pattern);
        if (!regex)
            return regex.error().in("Split");
        cut = [regex = std::move(*regex)](std::string_view text) { return regex.cut(text); };
    } else {
        auto needle = fixed_pattern(json["pattern"]);
        if (!needle)
            return needle.error().in("Split");
        cut = [needle = std::move(*needle)](std::string_view text) { return cut_at(text, needle); };
    }
    const bool invert = json["invert"].boolean();
    steps_.push_back([cut = std::move(cut), behavior = *behavior, invert](Pieces& pieces) {
        return cut_pieces(pieces, [&](const std::string& text) -> Result<std::vector<TextRange>> {
            auto ranges = cut(text);
            if (!ranges)
                return ranges;
            for (TextRange& range : *ranges)
                range.is_match = range.is_match != invert;
            return arrange(std::move(*ranges), behavior);
        });
    });
    return {};
}

Status PreTokenizer::add_metaspace(const Json& json)
{
    const std::string mark = json["replacement"].string("▁");
    if (mark.empty())
        return bad_input("\"replacement\" is empty", "Metaspace");
    if (auto taken = growth_.take(1, mark.size() + 1); !taken)
        return taken;
    // Older files say add_prefix_space, newer ones prepend_scheme.
    const std::string scheme =
        json["prepend_scheme"].string(json["add_prefix_space"].boolean(true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
        return bad_input("the prepend_scheme \"" + scheme + "\" is not known", "Metaspace");
    steps_.push_back([mark, scheme](Pieces& pieces) -> Status {
        for (std::size_t i = 0; i < pieces.texts.size(); ++i) {
            std::string& text = pieces.texts[i];
            text = replaced(text, " ", mark);
            const bool wanted = scheme == "always" || (scheme == "first" && i == 0 && pieces.at_text_start);
            if (wanted && !text.starts_with(mark))
                text.insert(0, mark);
        }
        return {};
    });
    if (json["split"].boolean(true)) {
        steps_.push_back([mark](Pieces& pieces) {
            return cut_pieces(pieces, [&mark](const std::string& text) -> Result<std::vector<TextRange>> {
                return arrange(cut_at(text, mark), Behavior::MergedWithNext);
            });
        });
    }
    return {};
}

} // namespace rankscope::detail
