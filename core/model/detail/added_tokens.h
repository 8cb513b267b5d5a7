// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/model/detail/normalizer.h"
#include "core/model/tokenizer.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rankscope::detail {

/// A token that is found in the text before anything else happens to it.
struct AddedToken {
    TokenId id = 0;
    std::string content;
    bool single_word = false;
    bool strip_left = false; ///< takes the white space in front with it
    bool strip_right = false;
    bool normalized = false; ///< is looked for after the normalizer
};

/// A stretch of text: one added token, or (id < 0) something to be cut further.
struct Stretch {
    TokenId id = -1;
    std::size_t begin = 0;
    std::size_t end = 0;
};

/// Finds a set of added tokens: the longest at the leftmost place.
class AddedTokenFinder {
public:
    void add(AddedToken token);
    bool empty() const { return tokens_.empty(); }
    std::vector<Stretch> cut(std::string_view text) const;

private:
    const AddedToken* longest_at(std::string_view text, std::size_t position) const;

    std::unordered_map<std::string, AddedToken> tokens_;
    std::array<std::vector<std::size_t>, 256> lengths_; ///< by first byte, falling
};

/// Reads `added_tokens`. Errors: BadInput.
Result<std::vector<AddedToken>> parse_added_tokens(const Json& json);

} // namespace rankscope::detail
