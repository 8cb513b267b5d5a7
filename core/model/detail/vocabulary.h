// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace rankscope::detail {

/// What a piece is for; the numbers are SentencePiece's, and GGUF's.
enum PieceType : std::int64_t {
    NormalPiece = 1,
    UnknownPiece = 2,
    ControlPiece = 3,
    UserDefinedPiece = 4,
    UnusedPiece = 5,
    BytePiece = 6
};

/// A vocabulary as tokenizer.model and GGUF hold it; from it the tokenizer.json is made that Hugging Face
/// would have, so that one tokenizer serves all.
struct Vocabulary {
    std::vector<std::string> pieces;
    std::vector<std::int64_t> types;
    std::vector<double> scores; ///< empty where merges are listed
    std::optional<std::int64_t> unknown;
    std::optional<std::int64_t> bos;
    bool adds_bos = false;
    bool space_in_front = true; ///< of each stretch of text
};

Json json_object(std::initializer_list<std::pair<const char*, Json>> members);
Json json_vocabulary(const Vocabulary& vocabulary); ///< piece → id; the first of equals keeps its id
Json json_added_tokens(const Vocabulary& vocabulary);
Json json_post_processor(const Vocabulary& vocabulary); ///< BOS in front, or null

/// A tokenizer.json for SentencePiece's BPE: spaces become ▁, the pair whose result scores best is joined
/// first, what is not in the vocabulary becomes bytes. Errors: BadInput (scores that are missing or no
/// numbers, pieces too long).
Result<Json> sentence_piece_json(const Vocabulary& vocabulary);

} // namespace rankscope::detail
