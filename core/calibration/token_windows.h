// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/model/model.h"

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// A text file as the model reads it.
struct TokenizedText {
    std::string file;            ///< file name only
    std::string hash;            ///< SHA-256 of the bytes
    std::vector<TokenId> prefix; ///< what the tokenizer puts in front (BOS); may be empty
    std::vector<TokenId> tokens; ///< the text, without the prefix
};

/// Reads and tokenises a whole text file. Errors: Io; BadInput (empty, invalid UTF-8 with its byte offset,
/// the checkpoint has no usable tokenizer).
Result<TokenizedText> tokenize_file(const Model& model, const std::filesystem::path& text);

/// Tokens per window: `requested`, or min(2048, the model's context) for 0. Errors: Usage (below 2, negative,
/// beyond the context).
Result<Index> window_length(const Model& model, Index requested);

/// Sequences of one length, all of which start at position 0.
struct TokenWindows {
    Index length = 0;
    std::vector<TokenId> tokens; ///< count × length

    Index count() const { return length == 0 ? 0 : static_cast<Index>(tokens.size()) / length; }
    std::span<const TokenId> range(Index first, Index windows) const
    {
        return std::span(tokens).subspan(static_cast<std::size_t>(first * length),
                                         static_cast<std::size_t>(windows * length));
    }
    std::span<const TokenId> window(Index index) const { return range(index, 1); }
};

/// Windows of `length` tokens, each the prefix and as much text as fits, `stride` text tokens apart; the
/// incomplete last one is left out, and no more than `limit` are taken (0: all). Errors: BadInput when the
/// text is too short for one, saying how many tokens are there and how many it takes.
Result<TokenWindows> prefixed_windows(const TokenizedText& text, Index length, Index stride, Index limit);
/// Windows cut from prefix + text as one stream: only the first window holds the prefix.
Result<TokenWindows> continuous_windows(const TokenizedText& text, Index length, Index stride);

} // namespace rankscope
