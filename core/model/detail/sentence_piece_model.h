// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/detail/vocabulary.h"

#include <string_view>

namespace rankscope::detail {

/// Reads a tokenizer.model: SentencePiece's ModelProto (sentencepiece_model.proto of
/// github.com/google/sentencepiece) in protobuf's wire format. Only BPE without a normalization of its own.
/// Nobody vouches for the bytes: every length is compared with what is left. Errors: BadInput naming what is
/// not known, or the byte.
Result<Vocabulary> parse_sentence_piece_model(std::string_view bytes);

} // namespace rankscope::detail
