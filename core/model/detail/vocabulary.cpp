// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/vocabulary.h"

#include "core/model/detail/utf8.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <tuple>
#include <unordered_map>

namespace rankscope::detail {
namespace {

constexpr std::string_view k_space = "\u2581"; // the sign that stands for a space

/// A piece is cut everywhere and its parts looked up: quadratic in its length. Real ones stay below 100
/// bytes.
constexpr std::size_t k_max_piece = 1024;

/// As a rank list: every split of a piece into two pieces, sorted by the piece's score, then by ids
/// (formats.md §9).
Json merges_from_scores(const Vocabulary& vocabulary)
{
    std::unordered_map<std::string_view, std::size_t> parts;
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
        const std::int64_t type = vocabulary.types[i];
        if (type == NormalPiece || type == UserDefinedPiece || type == UnusedPiece)
            parts.emplace(vocabulary.pieces[i], i);
    }
    std::vector<std::tuple<double, std::size_t, std::size_t, std::size_t>> splits;
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
        const std::string_view piece = vocabulary.pieces[i];
        if (vocabulary.types[i] != NormalPiece && vocabulary.types[i] != UserDefinedPiece)
            continue;
        for (std::size_t cut = piece.empty() ? 0 : utf8_length(piece.front()); cut < piece.size();
             cut += utf8_length(piece[cut])) {
            const auto left = parts.find(piece.substr(0, cut));
            const auto right = parts.find(piece.substr(cut));
            if (left != parts.end() && right != parts.end())
                splits.emplace_back(-vocabulary.scores[i], i, left->second, right->second);
        }
    }
    std::sort(splits.begin(), splits.end());
    Json::Array merges;
    merges.reserve(splits.size());
    for (const auto& [score, piece, left, right] : splits)
        merges.push_back(Json::Array{Json(vocabulary.pieces[left]), Json(vocabulary.pieces[right])});
    return merges;
}

Status check_pieces(const Vocabulary& vocabulary)
{
    if (vocabulary.scores.size() != vocabulary.pieces.size())
        return bad_input("there is not one score for each token");
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
        const std::string& piece = vocabulary.pieces[i];
        const std::string where = "token " + std::to_string(i);
        if (piece.size() > k_max_piece)
            return bad_input("it has " + std::to_string(piece.size()) + " bytes, more than the "
                                 + std::to_string(k_max_piece) + " that are accepted",
                             where);
        if (first_invalid_utf8(piece))
            return bad_input("it is not valid UTF-8", where);
        if (!std::isfinite(vocabulary.scores[i]))
            return bad_input("its score is no finite number", where);
    }
    return {};
}

} // namespace

Json json_object(std::initializer_list<std::pair<const char*, Json>> members)
{
    Json result;
    for (const auto& [key, value] : members)
        result.set(key, value);
    return result;
}

Json json_vocabulary(const Vocabulary& vocabulary)
{
    Json::Object ids;
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i)
        ids.emplace(vocabulary.pieces[i], static_cast<std::int64_t>(i));
    return ids;
}

Json json_added_tokens(const Vocabulary& vocabulary)
{
    Json::Array added;
    for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
        const std::int64_t type = vocabulary.types[i];
        const std::string& piece = vocabulary.pieces[i];
        if ((type != ControlPiece && type != UserDefinedPiece && type != UnknownPiece) || piece.empty())
            continue;
        added.push_back(json_object({{"id", static_cast<std::int64_t>(i)},
                                     {"content", piece},
                                     {"single_word", false},
                                     {"lstrip", false},
                                     {"rstrip", false},
                                     {"normalized", false},
                                     {"special", type != UserDefinedPiece}}));
    }
    return added;
}

Json json_post_processor(const Vocabulary& vocabulary)
{
    if (!vocabulary.bos || !vocabulary.adds_bos)
        return {};
    const std::string& text = vocabulary.pieces[static_cast<std::size_t>(*vocabulary.bos)];
    const Json special = json_object({{"SpecialToken", json_object({{"id", text}, {"type_id", 0}})}});
    const Json sequence = json_object({{"Sequence", json_object({{"id", "A"}, {"type_id", 0}})}});
    Json specials;
    specials.set(text, json_object({{"id", text},
                                    {"ids", Json::Array{Json(*vocabulary.bos)}},
                                    {"tokens", Json::Array{Json(text)}}}));
    return json_object({{"type", "TemplateProcessing"},
                        {"single", Json::Array{special, sequence}},
                        {"pair", Json::Array{special, sequence}},
                        {"special_tokens", specials}});
}

Result<Json> sentence_piece_json(const Vocabulary& vocabulary)
{
    if (auto checked = check_pieces(vocabulary); !checked)
        return checked.error();
    const Json space = json_object({{"String", k_space}});
    Json::Array normalizers;
    if (vocabulary.space_in_front)
        normalizers.push_back(json_object({{"type", "Prepend"}, {"prepend", k_space}}));
    normalizers.push_back(json_object(
        {{"type", "Replace"}, {"pattern", json_object({{"String", " "}})}, {"content", k_space}}));
    Json::Array decoders = {json_object({{"type", "Replace"}, {"pattern", space}, {"content", " "}}),
                            json_object({{"type", "ByteFallback"}}), json_object({{"type", "Fuse"}})};
    if (vocabulary.space_in_front)
        decoders.push_back(json_object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
    const auto& types = vocabulary.types;
    const bool bytes = std::find(types.begin(), types.end(), std::int64_t{BytePiece}) != types.end();
    const Json unknown =
        vocabulary.unknown ? Json(vocabulary.pieces[static_cast<std::size_t>(*vocabulary.unknown)]) : Json();
    const Json model = json_object({{"type", "BPE"},
                                    {"unk_token", unknown},
                                    {"fuse_unk", true},
                                    {"byte_fallback", bytes},
                                    {"vocab", json_vocabulary(vocabulary)},
                                    {"merges", merges_from_scores(vocabulary)}});
    return json_object({{"added_tokens", json_added_tokens(vocabulary)},
                        {"normalizer", json_object({{"type", "Sequence"}, {"normalizers", normalizers}})},
                        {"pre_tokenizer", Json()},
                        {"post_processor", json_post_processor(vocabulary)},
                        {"decoder", json_object({{"type", "Sequence"}, {"decoders", decoders}})},
                        {"model", model}});
}

} // namespace rankscope::detail
