// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

using TokenId = std::int32_t;

/// Text ↔ token ids, equal to the Hugging Face `tokenizers` library on what is implemented: BPE (byte-level, or
/// SentencePiece-like with byte fallback) with the normalizers, pre-tokenizers and decoders of formats.md §9. Anything
/// else is refused by name when the file is read. Const and thread-safe.
class Tokenizer {
public:
    virtual ~Tokenizer() = default;

    /// Reads FOLDER/tokenizer.json, or FOLDER/tokenizer.model (SentencePiece) where there is none, or the file itself.
    /// Errors: Io, BadInput naming what is not implemented.
    static Result<std::shared_ptr<const Tokenizer>> read(const std::filesystem::path& folder_or_file);
    static Result<std::shared_ptr<const Tokenizer>> parse(const Json& tokenizer_json);

    /// Ids without BOS; texts of special tokens are recognised. Invalid UTF-8: BadInput with the byte offset.
    virtual Result<std::vector<TokenId>> encode(std::string_view text) const = 0;
    /// What the post-processor puts in front (usually the one BOS token); may be empty.
    virtual std::span<const TokenId> prefix() const = 0;
    virtual std::string decode(std::span<const TokenId> ids) const = 0;
    /// The token as stored ("▁the", "Ġthe", "<0x0A>"); empty for ids out of range.
    virtual std::string token_text(TokenId id) const = 0;
    virtual std::size_t vocabulary() const = 0; ///< highest id + 1
};

} // namespace rankscope
