// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/added_tokens.h"

#include "core/model/detail/bpe.h"
#include "core/model/detail/utf8.h"

#include <algorithm>
#include <functional>

namespace rankscope::detail {
namespace {

/// The character that ends right before `position`; nothing at the front.
std::optional<Utf8Step> step_before(std::string_view text, std::size_t position)
{
    if (position == 0)
        return std::nullopt;
    std::size_t begin = position - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80U)
        --begin;
    return utf8_step(text, begin);
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end)
{
    const auto before = step_before(text, begin);
    const bool after_word = before && is_word(before->code_point);
    const bool before_word = end < text.size() && is_word(utf8_step(text, end).code_point);
    return !after_word && !before_word;
}

std::size_t skip_space_left(std::string_view text, std::size_t position)
{
    for (auto step = step_before(text, position); step && is_space(step->code_point);
         step = step_before(text, position))
        position -= step->length;
    return position;
}

std::size_t skip_space_right(std::string_view text, std::size_t position)
{
    while (position < text.size()) {
        const Utf8Step step = utf8_step(text, position);
        if (!is_space(step.code_point))
            break;
        position += step.length;
    }
    return position;
}

} // namespace

void AddedTokenFinder::add(AddedToken token)
{
    if (token.content.empty())
        return;
    auto& lengths = lengths_[static_cast<unsigned char>(token.content.front())];
    const auto place =
        std::lower_bound(lengths.begin(), lengths.end(), token.content.size(), std::greater<>());
    if (place == lengths.end() || *place != token.content.size())
        lengths.insert(place, token.content.size());
    std::string key = token.content;
    tokens_.insert_or_assign(std::move(key), std::move(token));
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, std::size_t position) const
{
    for (const std::size_t length : lengths_[static_cast<unsigned char>(text[position])]) {
        if (length > text.size() - position)
            continue;
        const auto found = tokens_.find(std::string(text.substr(position, length)));
        if (found != tokens_.end())
            return &found->second;
    }
    return nullptr;
}

std::vector<Stretch> AddedTokenFinder::cut(std::string_view text) const
{
    std::vector<Stretch> stretches;
    std::size_t reached = 0;
    for (std::size_t i = 0; i < text.size() && !tokens_.empty();) {
        const AddedToken* token = longest_at(text, i);
        if (!token) {
            ++i;
            continue;
        }
        std::size_t begin = i;
        std::size_t end = i + token->content.size();
        i = end;
        if (token->single_word && !stands_alone(text, begin, end))
            continue;
        if (token->strip_left)
            begin = std::max(skip_space_left(text, begin), reached);
        if (token->strip_right)
            end = skip_space_right(text, end);
        if (reached < begin)
            stretches.push_back({-1, reached, begin});
        stretches.push_back({token->id, begin, end});
        reached = end;
    }
    if (reached < text.size())
        stretches.push_back({-1, reached, text.size()});
    return stretches;
}

Result<std::vector<AddedToken>> parse_added_tokens(const Json& json)
{
    std::vector<AddedToken> tokens;
    if (json.is_null())
        return tokens;
    if (!json.is_array())
        return bad_input("a list was expected", "added_tokens");
    for (const Json& item : *json.array_if()) {
        AddedToken token;
        const Json& id = item["id"];
        if (!id.is_integer() || id.integer() < 0 || !item["content"].is_string())
            return bad_input("entry " + std::to_string(tokens.size()) + " lacks \"id\" or \"content\"",
                             "added_tokens");
        if (id.integer() > k_max_token_id)
            return bad_input("the id " + std::to_string(id.integer()) + " is larger than the "
                                 + std::to_string(k_max_token_id) + " that are accepted",
                             "added_tokens");
        token.id = static_cast<TokenId>(id.integer());
        token.content = item["content"].string();
        token.single_word = item["single_word"].boolean();
        token.strip_left = item["lstrip"].boolean();
        token.strip_right = item["rstrip"].boolean();
        token.normalized = item["normalized"].boolean(!item["special"].boolean());
        tokens.push_back(std::move(token));
    }
    return tokens;
}

} // namespace rankscope::detail
