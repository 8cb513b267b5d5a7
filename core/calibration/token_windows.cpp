// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/token_windows.h"

#include "core/base/json.h"
#include "core/base/sha256.h"

#include <algorithm>
#include <string>

namespace rankscope {
namespace {

constexpr Index k_default_length = 2048;

Error too_short(const TokenizedText& text, Index needed)
{
    return bad_input("the text is too short: it has " + std::to_string(text.tokens.size())
                         + " tokens, and one window takes " + std::to_string(needed),
                     text.file, "Give a longer text or a smaller --length");
}

} // namespace

Result<TokenizedText> tokenize_file(const Model& model, const std::filesystem::path& text)
{
    if (auto runs = model.architecture().runs(); !runs)
        return runs.error();
    auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    auto content = read_text_file(text);
    if (!content)
        return content.error();
    if (content->empty())
        return bad_input("the text is empty", text.string(),
                         "Give a text file with at least one window of tokens");
    auto tokens = (*tokenizer)->encode(*content);
    if (!tokens)
        return tokens.error().in(text.string());
    const auto prefix = (*tokenizer)->prefix();
    return TokenizedText{
        text.filename().string(), sha256_hex(*content), {prefix.begin(), prefix.end()}, std::move(*tokens)};
}

Result<Index> window_length(const Model& model, Index requested)
{
    const Index context = model.config().max_positions;
    if (requested == 0)
        return context > 0 ? std::min(k_default_length, context) : k_default_length;
    if (requested < 2)
        return usage_error(
            "a window needs at least 2 tokens, " + std::to_string(requested) + " were asked for", "--length");
    if (context > 0 && requested > context)
        return usage_error("windows of " + std::to_string(requested)
                               + " tokens are longer than the model's context of " + std::to_string(context),
                           "--length", "Choose a length of at most " + std::to_string(context));
    return requested;
}

Result<TokenWindows> prefixed_windows(const TokenizedText& text, Index length, Index stride, Index limit)
{
    const auto content = length - static_cast<Index>(text.prefix.size());
    if (content < 1 || stride < 1)
        return usage_error("windows of " + std::to_string(length) + " tokens leave no room for text",
                           "--length");
    const auto available = static_cast<Index>(text.tokens.size());
    if (available < content)
        return too_short(text, content);
    TokenWindows windows{length, {}};
    for (Index first = 0; first + content <= available && (limit == 0 || windows.count() < limit);
         first += stride) {
        windows.tokens.insert(windows.tokens.end(), text.prefix.begin(), text.prefix.end());
        const auto begin = text.tokens.begin() + first;
        windows.tokens.insert(windows.tokens.end(), begin, begin + content);
    }
    return windows;
}

Result<TokenWindows> continuous_windows(const TokenizedText& text, Index length, Index stride)
{
    if (stride < 1)
        return usage_error("windows must be at least one token apart", "--stride");
    std::vector<TokenId> stream(text.prefix);
    stream.insert(stream.end(), text.tokens.begin(), text.tokens.end());
    const auto available = static_cast<Index>(stream.size());
    if (available < length)
        return too_short(text, length - static_cast<Index>(text.prefix.size()));
    TokenWindows windows{length, {}};
    for (Index first = 0; first + length <= available; first += stride)
        windows.tokens.insert(windows.tokens.end(), stream.begin() + first, stream.begin() + first + length);
    return windows;
}

} // namespace rankscope
