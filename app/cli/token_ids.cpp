// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/token_ids.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace rankscope::cli {
namespace {

Error no_id(std::string_view piece)
{
    return bad_input(fmt::format("\"{}\" is no token id", piece), {},
                     "Write whole numbers, separated by spaces or commas, or a JSON list");
}

Result<std::vector<TokenId>> ids_of(const Json::Array& list)
{
    std::vector<TokenId> ids;
    for (const Json& entry : list) {
        const std::int64_t value = entry.integer(-1);
        if (!entry.is_integer() || value < 0 || value > std::numeric_limits<TokenId>::max())
            return no_id(entry.dump());
        ids.push_back(static_cast<TokenId>(value));
    }
    return ids;
}

} // namespace

Result<std::vector<TokenId>> parse_ids(std::string_view text)
{
    constexpr std::string_view k_separators = " \t\r\n,";
    const auto first = text.find_first_not_of(k_separators);
    if (first != std::string_view::npos && (text[first] == '[' || text[first] == '{')) {
        auto json = Json::parse(text);
        if (!json)
            return json.error();
        const Json& list = json->is_object() ? (*json)["ids"] : *json;
        if (!list.array_if())
            return bad_input("there is no list \"ids\"");
        return ids_of(*list.array_if());
    }
    std::vector<TokenId> ids;
    for (auto start = first; start != std::string_view::npos;
         start = text.find_first_not_of(k_separators, start)) {
        const auto end = std::min(text.find_first_of(k_separators, start), text.size());
        const std::string_view piece = text.substr(start, end - start);
        TokenId id = 0;
        const auto parsed = std::from_chars(piece.data(), piece.data() + piece.size(), id);
        if (parsed.ec != std::errc{} || parsed.ptr != piece.data() + piece.size() || id < 0)
            return no_id(piece);
        ids.push_back(id);
        start = end;
    }
    return ids;
}

} // namespace rankscope::cli
