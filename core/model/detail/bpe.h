// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/model/tokenizer.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rankscope::detail {

/// No vocabulary comes near it; a table indexed by ids must not be driven to gigabytes by one of them.
inline constexpr std::int64_t k_max_token_id = 4'000'000;

/// Byte-pair encoding: a vocabulary, and pairs of tokens in the order in which they are joined. Const once
/// read.
class BytePairModel {
public:
    /// Reads the `model` object. Errors: BadInput naming what is not known or does not fit.
    static Result<BytePairModel> parse(const Json& model);

    /// Appends the tokens of one piece (valid UTF-8).
    void encode(std::string_view piece, std::vector<TokenId>& ids) const;

    TokenId find(std::string_view token) const; ///< −1: not there
    const std::unordered_map<std::string, TokenId>& vocabulary() const { return vocabulary_; }

private:
    struct Merge {
        std::uint32_t rank = 0;
        TokenId result = 0;
    };
    struct Symbol {
        TokenId id = 0;
        std::int32_t previous = -1;
        std::int32_t next = -1;
        bool gone = false;
    };
    struct Candidate;
    class Queue;

    Status read_vocabulary(const Json& vocabulary);
    Status read_merges(const Json& merges);
    Status read_options(const Json& model);
    std::vector<TokenId> first_symbols(std::string_view piece) const;
    const Merge* find_merge(TokenId left, TokenId right) const;
    void merge_all(std::vector<Symbol>& symbols) const;

    std::unordered_map<std::string, TokenId> vocabulary_;
    std::unordered_map<std::uint64_t, Merge> merges_;
    std::array<TokenId, 256> byte_tokens_{};
    TokenId unknown_ = -1;
    bool byte_fallback_ = false;
    bool fuse_unknown_ = false;
    bool ignore_merges_ = false;
};

} // namespace rankscope::detail
