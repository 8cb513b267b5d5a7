// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/normalizer.h"

#include "core/model/detail/utf8.h"

namespace rankscope::detail {
namespace {

constexpr int k_max_nesting = 8;

constexpr double k_max_growth = 256.0;
constexpr int k_max_steps = 64;
constexpr std::size_t k_max_prepend = 64;

} // namespace

Status Growth::take(std::size_t from, std::size_t to)
{
    factor_ *= to > from ? static_cast<double>(to) / static_cast<double>(from) : 1.0;
    if (++steps_ > k_max_steps || factor_ > k_max_growth)
        return bad_input("its steps together would make a text too long");
    return {};
}

std::string replaced(std::string_view text, std::string_view needle, std::string_view content)
{
    std::string result;
    result.reserve(text.size());
    std::size_t reached = 0;
    for (;;) {
        const std::size_t found = text.find(needle, reached);
        if (found == std::string_view::npos)
            break;
        result += text.substr(reached, found - reached);
        result += content;
        reached = found + needle.size();
    }
    result += text.substr(reached);
    return result;
}

Result<std::string> fixed_pattern(const Json& pattern)
{
    const std::string* text = pattern["String"].string_if();
    if (!text && pattern["Regex"].is_string())
        return bad_input("a regular expression is not known here, only a fixed text", "pattern");
    if (!text || text->empty())
        return bad_input("a fixed text that is not empty was expected", "pattern");
    return *text;
}

Result<Normalizer> Normalizer::parse(const Json& json)
{
    Normalizer result;
    if (auto added = result.add(json, 0); !added)
        return added.error().in("normalizer");
    return result;
}

Status Normalizer::add(const Json& json, int depth)
{
    if (json.is_null())
        return {};
    const std::string type = json["type"].string();
    if (type == "Sequence" && json["normalizers"].is_array() && depth < k_max_nesting) {
        for (const Json& part : *json["normalizers"].array_if()) {
            if (auto added = add(part, depth + 1); !added)
                return added;
        }
        return {};
    }
    if (type == "Prepend" && json["prepend"].is_string()) {
        if (json["prepend"].string_if()->size() > k_max_prepend)
            return bad_input("the text to put in front is too long", "Prepend");
        if (auto taken = growth_.take(1, 1); !taken)
            return taken;
        steps_.push_back([front = json["prepend"].string()](std::string& text) {
            if (!text.empty())
                text.insert(0, front);
        });
        return {};
    }
    if (type == "Replace" && json["content"].is_string()) {
        auto needle = fixed_pattern(json["pattern"]);
        if (!needle)
            return needle.error().in("Replace");
        if (auto taken = growth_.take(needle->size(), json["content"].string_if()->size()); !taken)
            return taken;
        steps_.push_back([needle = std::move(*needle), content = json["content"].string()](
                             std::string& text) { text = replaced(text, needle, content); });
        return {};
    }
    if (type == "NFC") {
        if (auto taken = growth_.take(1, 3); !taken) // three bytes for one, at worst
            return taken;
        steps_.push_back([](std::string& text) { text = composed(text); });
        return {};
    }
    return bad_input("\"" + type + "\" is not known or not complete; known: Prepend, Replace, NFC, Sequence");
}

void Normalizer::apply(std::string& text) const
{
    for (const auto& step : steps_)
        step(text);
}

} // namespace rankscope::detail
