// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/normalizer.h"

#include "core/model/detail/steps.h"
#include "core/model/detail/utf8.h"

namespace rankscope::detail {
namespace {

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

bool is_replace(const Json& step)
{
    return step["type"].string() == "Replace" && step["content"].is_string();
}

Result<std::function<void(std::string&)>> replace_step(const Json& step, Growth& growth)
{
    auto needle = fixed_pattern(step["pattern"]);
    if (!needle)
        return needle.error().in("Replace");
    std::string content = step["content"].string();
    if (auto taken = growth.take(needle->size(), content.size()); !taken)
        return taken.error();
    return std::function<void(std::string&)>(
        [needle = std::move(*needle), content = std::move(content)](std::string& text) {
            text = replaced(text, needle, content);
        });
}

Result<Normalizer> Normalizer::parse(const Json& json)
{
    Normalizer result;
    const auto added =
        for_each_step(json, "normalizers", [&result](const Json& step) { return result.add(step); });
    if (!added)
        return added.error().in("normalizer");
    return result;
}

Status Normalizer::add(const Json& json)
{
    const std::string type = json["type"].string();
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
    if (is_replace(json)) {
        auto step = replace_step(json, growth_);
        if (!step)
            return step.error();
        steps_.push_back(std::move(*step));
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
