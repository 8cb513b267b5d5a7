// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/evaluate/multiple_choice.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

/// Bounds on what a line may hold: far above every published task, far below what fills a memory.
constexpr std::size_t k_max_line_bytes = std::size_t{4} << 20;
constexpr std::size_t k_max_choices = 1024;

constexpr char k_shape[] =
    R"(Write lines like {"context": "Question: …\nAnswer:", "choices": ["yes", "no"], "gold": 0})";

Result<std::vector<std::string>> texts(const Json& json, const char* key)
{
    const Json::Array* list = json[key].array_if();
    if (!list || list->empty() || list->size() > k_max_choices)
        return bad_input(std::string("\"") + key + "\" is not a list of 1 to " + std::to_string(k_max_choices)
                             + " texts",
                         {}, k_shape);
    std::vector<std::string> result;
    for (const Json& entry : *list) {
        if (!entry.is_string())
            return bad_input(std::string("\"") + key + "\" holds something that is no text", {}, k_shape);
        result.push_back(entry.string());
    }
    return result;
}

Status read_contexts(const Json& json, ChoiceItem& item)
{
    const bool one = json.find("context") != nullptr;
    if (one == (json.find("contexts") != nullptr))
        return bad_input("there must be either \"context\" or \"contexts\"", {}, k_shape);
    if (one) {
        if (!json["context"].is_string())
            return bad_input("\"context\" is no text", {}, k_shape);
        item.contexts = {json["context"].string()};
        return {};
    }
    auto contexts = texts(json, "contexts");
    if (!contexts)
        return contexts.error();
    if (contexts->size() != item.choices.size())
        return bad_input("there are " + std::to_string(contexts->size()) + " contexts and "
                             + std::to_string(item.choices.size()) + " choices",
                         {}, "Give one context, or one for each choice");
    item.contexts = std::move(*contexts);
    return {};
}

Result<ChoiceItem> parse_item(std::string_view line)
{
    JsonLimits limits;
    limits.max_bytes = k_max_line_bytes;
    auto json = Json::parse(line, limits);
    if (!json)
        return json.error();
    if (!json->is_object())
        return bad_input("a question must be a JSON object", {}, k_shape);
    ChoiceItem item;
    auto choices = texts(*json, "choices");
    if (!choices)
        return choices.error();
    item.choices = std::move(*choices);
    if (std::any_of(item.choices.begin(), item.choices.end(), [](const auto& text) { return text.empty(); }))
        return bad_input("a choice is empty", {}, k_shape);
    if (auto contexts = read_contexts(*json, item); !contexts)
        return contexts.error();
    const Json& gold = (*json)["gold"];
    if (!gold.is_integer() || gold.integer() < 0
        || gold.integer() >= static_cast<std::int64_t>(item.choices.size()))
        return bad_input("\"gold\" is no number from 0 to " + std::to_string(item.choices.size() - 1), {},
                         k_shape);
    item.gold = static_cast<std::size_t>(gold.integer());
    const Json& normalized = (*json)["norm"];
    if (!normalized.is_null() && !normalized.is_bool())
        return bad_input("\"norm\" is neither true nor false", {}, k_shape);
    item.normalized = normalized.boolean();
    return item;
}

/// Characters of UTF-8 text: the bytes that begin one.
std::size_t count_characters(std::string_view text)
{
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

template <class Score>
std::size_t first_best(std::size_t count, const Score& score)
{
    std::size_t best = 0;
    for (std::size_t i = 1; i < count; ++i)
        best = score(i) > score(best) ? i : best;
    return best;
}

} // namespace

Result<ChoiceTask> read_choice_task(const std::filesystem::path& file)
{
    auto content = read_text_file(file);
    if (!content)
        return content.error();
    ChoiceTask task;
    task.name = file.stem().string();
    task.file_hash = sha256_hex(*content);
    const std::string_view text = *content;
    std::size_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, end - begin);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos)
            continue;
        auto item = parse_item(line);
        if (!item)
            return item.error().in(file.string() + ", line " + std::to_string(number));
        task.items.push_back(std::move(*item));
    }
    if (task.items.empty())
        return bad_input("the file holds no question", file.string(), k_shape);
    return task;
}

ChoiceWinners choice_winners(std::span<const ChoiceScore> scores, std::span<const std::string> choices)
{
    const auto per = [&](const auto& length) {
        return first_best(scores.size(), [&](std::size_t i) {
            return scores[i].log_likelihood
                   / static_cast<double>(std::max<std::size_t>(1, length(choices[i])));
        });
    };
    return {first_best(scores.size(), [&](std::size_t i) { return scores[i].log_likelihood; }),
            per([](const std::string& text) { return count_characters(text); }),
            per([](const std::string& text) { return text.size(); })};
}

} // namespace rankscope
