// SPDX-License-Identifier: GPL-3.0-or-later
// The input is a tokenizer.json, optionally followed by a zero byte and a text to encode and decode.
#include "core/model/tokenizer.h"

using namespace rankscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const std::string_view input(reinterpret_cast<const char*>(data), size);
    const std::size_t end = std::min(input.find('\0'), size);
    const auto json = Json::parse(input.substr(0, end), JsonLimits{1 << 20, 64, 100'000});
    if (!json)
        return 0;
    const auto tokenizer = Tokenizer::parse(*json);
    if (!tokenizer) {
        if (tokenizer.error().kind != ErrorKind::BadInput || tokenizer.error().message.empty())
            __builtin_trap();
        return 0;
    }
    const std::string_view text = end < size ? input.substr(end + 1) : "ab\xC3\xA4 1 <x> \xE2\x96\x81";
    const auto ids = (*tokenizer)->encode(text);
    if (!ids)
        return 0;
    for (const TokenId id : *ids) {
        if (id < 0 || static_cast<std::size_t>(id) >= (*tokenizer)->vocabulary())
            __builtin_trap();
    }
    (*tokenizer)->decode(*ids);
    return 0;
}
