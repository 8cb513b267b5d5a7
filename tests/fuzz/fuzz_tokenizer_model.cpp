// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a tokenizer.model (SentencePiece's protobuf).
#include "core/model/detail/sentence_piece_model.h"
#include "core/model/tokenizer.h"

using namespace rankscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const auto vocabulary = detail::parse_sentence_piece_model({reinterpret_cast<const char*>(data), size});
    if (!vocabulary) {
        if (vocabulary.error().kind != ErrorKind::BadInput || vocabulary.error().message.empty())
            __builtin_trap();
        return 0;
    }
    const auto json = detail::sentence_piece_json(*vocabulary);
    if (!json)
        return 0;
    const auto tokenizer = Tokenizer::parse(*json);
    if (!tokenizer)
        return 0;
    const auto ids = (*tokenizer)->encode("ab\xC3\xA4 1 <x> \xE2\x96\x81");
    if (!ids)
        return 0;
    for (const TokenId id : *ids) {
        if (id < 0 || static_cast<std::size_t>(id) >= (*tokenizer)->vocabulary())
            __builtin_trap();
    }
    (*tokenizer)->decode(*ids);
    return 0;
}
