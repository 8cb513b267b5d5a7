// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/decoder.h"

#include "core/model/detail/byte_level.h"
#include "core/model/detail/steps.h"
#include "core/model/detail/utf8.h"

namespace rankscope::detail {
namespace {

using Tokens = std::vector<std::string>;

void join(Tokens& tokens)
{
    std::string text;
    for (const std::string& token : tokens)
        text += token;
    tokens.assign(1, std::move(text));
}

void decode_byte_level(Tokens& tokens)
{
    std::string bytes;
    for (const std::string& token : tokens)
        bytes += bytes_of_letters(token);
    tokens.assign(
        1, repaired_utf8(bytes)); // characters may be spread over tokens: only the whole can be checked
}

/// Runs of <0x..> become the text that they spell, or one U+FFFD a byte where they spell none.
void decode_byte_tokens(Tokens& tokens)
{
    Tokens result;
    std::string run;
    const auto flush = [&] {
        if (run.empty())
            return;
        if (first_invalid_utf8(run)) {
            for (std::size_t i = 0; i < run.size(); ++i)
                result.emplace_back("\xEF\xBF\xBD");
        } else {
            result.push_back(run);
        }
        run.clear();
    };
    for (std::string& token : tokens) {
        const int byte = byte_of_token(token);
        if (byte >= 0) {
            run += static_cast<char>(byte);
        } else {
            flush();
            result.push_back(std::move(token));
        }
    }
    flush();
    tokens = std::move(result);
}

/// The first token loses the marks that were put in front of the text.
void decode_metaspace(Tokens& tokens, const std::string& mark, bool prepended)
{
    for (std::size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replaced(tokens[i], mark, i == 0 && prepended ? "" : " ");
}

} // namespace

Result<Decoder> Decoder::parse(const Json& json)
{
    Decoder result;
    result.absent_ = json.is_null();
    const auto added =
        for_each_step(json, "decoders", [&result](const Json& step) { return result.add(step); });
    if (!added)
        return added.error().in("decoder");
    return result;
}

Status Decoder::add(const Json& json)
{
    const std::string type = json["type"].string();
    if (is_replace(json)) {
        auto step = replace_step(json, growth_);
        if (!step)
            return step.error();
        steps_.push_back([step = std::move(*step)](Tokens& tokens) {
            for (std::string& token : tokens)
                step(token);
        });
        return {};
    }
    if (type == "Metaspace") {
        const std::string mark = json["replacement"].string("▁");
        if (mark.empty())
            return bad_input("\"replacement\" is empty", "Metaspace");
        const bool prepended =
            json["prepend_scheme"].string(json["add_prefix_space"].boolean(true) ? "always" : "never")
            != "never";
        steps_.push_back([mark, prepended](Tokens& tokens) { decode_metaspace(tokens, mark, prepended); });
        return {};
    }
    if (auto taken = growth_.take(1, type == "ByteLevel" ? 3 : 1); !taken) // U+FFFD for a byte
        return taken;
    if (type == "Strip")
        return add_strip(json);
    if (type == "ByteLevel")
        steps_.emplace_back(decode_byte_level);
    else if (type == "ByteFallback")
        steps_.emplace_back(decode_byte_tokens);
    else if (type == "Fuse")
        steps_.emplace_back(join);
    else
        return bad_input("\"" + type
                         + "\" is not known or not complete; known: ByteLevel, Replace, ByteFallback, Fuse, "
                         + "Strip, Metaspace, Sequence");
    return {};
}

Status Decoder::add_strip(const Json& json)
{
    const std::string content = json["content"].string();
    const std::int64_t start = json["start"].integer(-1);
    const std::int64_t stop = json["stop"].integer(-1);
    if (content.empty() || start < 0 || stop < 0)
        return bad_input("\"content\", \"start\" and \"stop\" were expected", "Strip");
    steps_.push_back([content, start, stop](Tokens& tokens) {
        for (std::string& token : tokens) {
            std::string_view rest = token;
            for (std::int64_t i = 0; i < start && rest.starts_with(content); ++i)
                rest.remove_prefix(content.size());
            for (std::int64_t i = 0; i < stop && rest.ends_with(content); ++i)
                rest.remove_suffix(content.size());
            token = std::string(rest);
        }
    });
    return {};
}

std::string Decoder::apply(Tokens tokens) const
{
    for (const auto& step : steps_)
        step(tokens);
    std::string text;
    for (std::size_t i = 0; i < tokens.size(); ++i)
        text += (absent_ && i > 0 ? " " : "") + tokens[i];
    return text;
}

} // namespace rankscope::detail
