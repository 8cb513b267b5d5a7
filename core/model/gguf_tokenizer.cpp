// SPDX-License-Identifier: GPL-3.0-or-later
// GGUF stores a vocabulary, merges or scores, and the name of a regular expression; from them this makes the
// tokenizer.json that Hugging Face would have, so that one tokenizer serves both.
#include "core/model/detail/vocabulary.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <array>

namespace rankscope {
namespace {

using namespace detail;

constexpr char k_prefix[] = "tokenizer.ggml.";

std::string place(const CheckpointReader& gguf, const std::string& key)
{
    return gguf.path().string() + ": key " + k_prefix + key;
}

std::optional<std::int64_t> special(const CheckpointReader& gguf, const std::string& which,
                                    std::size_t tokens)
{
    const Json* id = gguf.metadata().find(k_prefix + which + "_token_id");
    if (!id || !id->is_integer() || id->integer() < 0 || id->integer() >= static_cast<std::int64_t>(tokens))
        return std::nullopt;
    return id->integer();
}

/// One entry for each token, or none at all where the key is absent.
Result<const Json::Array*> entries(const CheckpointReader& gguf, const std::string& key, std::size_t tokens)
{
    const auto* list = gguf.metadata()[k_prefix + key].array_if();
    if (list && list->size() != tokens)
        return bad_input("it has " + std::to_string(list->size()) + " entries for " + std::to_string(tokens)
                             + " tokens",
                         place(gguf, key));
    return list;
}

Result<Vocabulary> read_vocabulary(const CheckpointReader& gguf)
{
    Vocabulary vocabulary;
    const auto* tokens = gguf.metadata()[std::string(k_prefix) + "tokens"].array_if();
    if (!tokens || tokens->empty())
        return bad_input("the file holds no vocabulary", place(gguf, "tokens"),
                         "Put the model's tokenizer.json beside it");
    for (const Json& token : *tokens)
        vocabulary.pieces.push_back(token.string());
    const auto types = entries(gguf, "token_type", tokens->size());
    if (!types)
        return types.error();
    vocabulary.types.assign(tokens->size(), NormalPiece);
    for (std::size_t i = 0; *types && i < tokens->size(); ++i)
        vocabulary.types[i] = (**types)[i].integer(NormalPiece);
    const auto scores = entries(gguf, "scores", tokens->size());
    if (!scores)
        return scores.error();
    for (std::size_t i = 0; *scores && i < tokens->size(); ++i)
        vocabulary.scores.push_back((**scores)[i].number());
    vocabulary.unknown = special(gguf, "unknown", tokens->size());
    vocabulary.bos = special(gguf, "bos", tokens->size());
    return vocabulary;
}

/// What cuts the text before merging, by its name in the file.
struct PreTokenizerChoice {
    Json pre_tokenizer;
    Json normalizer;
    bool ignore_merges = false;
};

Json byte_level(bool use_regex)
{
    return json_object({{"type", "ByteLevel"},
                        {"add_prefix_space", false},
                        {"trim_offsets", true},
                        {"use_regex", use_regex}});
}

Json sequence_of(Json first, Json second)
{
    return json_object(
        {{"type", "Sequence"}, {"pretokenizers", Json::Array{std::move(first), std::move(second)}}});
}

Json split_by(const char* digits)
{
    const std::string regex = std::string(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})")
                              + digits + R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    return json_object({{"type", "Split"},
                        {"pattern", json_object({{"Regex", regex}})},
                        {"behavior", "Isolated"},
                        {"invert", false}});
}

/// Pre-tokenizers by their names in llama.cpp; several stand for one.
struct NamedChoice {
    std::string_view name;
    PreTokenizerChoice (*make)();
};

PreTokenizerChoice gpt2_words() { return {byte_level(true), {}, false}; }

PreTokenizerChoice digits_apart()
{
    return {sequence_of(json_object({{"type", "Digits"}, {"individual_digits", true}}), byte_level(true)),
            {},
            false};
}

PreTokenizerChoice llama3_words() { return {sequence_of(split_by("{1,3}"), byte_level(false)), {}, true}; }

PreTokenizerChoice qwen2_words()
{
    return {sequence_of(split_by(""), byte_level(false)), json_object({{"type", "NFC"}}), false};
}

constexpr std::array k_choices = {
    NamedChoice{"default", gpt2_words},
    NamedChoice{"gpt-2", gpt2_words},
    NamedChoice{"gpt2", gpt2_words},
    NamedChoice{"phi-2", gpt2_words},
    NamedChoice{"mpt", gpt2_words},
    NamedChoice{"olmo", gpt2_words},
    NamedChoice{"smollm", digits_apart},
    NamedChoice{"starcoder", digits_apart},
    NamedChoice{"refact", digits_apart},
    NamedChoice{"command-r", digits_apart},
    NamedChoice{"llama-bpe", llama3_words},
    NamedChoice{"llama3", llama3_words},
    NamedChoice{"llama-v3", llama3_words},
    NamedChoice{"qwen2", qwen2_words},
    NamedChoice{"deepseek-r1-qwen", qwen2_words},
    NamedChoice{"stablelm2", qwen2_words},
};

Result<PreTokenizerChoice> pre_tokenizer_named(const std::string& name, const CheckpointReader& gguf)
{
    std::string known;
    for (const NamedChoice& choice : k_choices) {
        if (choice.name == name || (name.empty() && choice.name == "default"))
            return choice.make();
        known += (known.empty() ? "" : ", ") + std::string(choice.name);
    }
    return bad_input("the pre-tokenizer \"" + name.substr(0, 80) + "\" is not known; known: " + known,
                     place(gguf, "pre"), "Open the safetensors version of the model");
}

Result<Json> byte_level_bpe(const Vocabulary& vocabulary, const CheckpointReader& gguf)
{
    const Json& merges = gguf.metadata()[std::string(k_prefix) + "merges"];
    if (!merges.is_array())
        return bad_input("there are no merges", place(gguf, "merges"));
    auto choice = pre_tokenizer_named(gguf.metadata()[std::string(k_prefix) + "pre"].string(), gguf);
    if (!choice)
        return choice.error();
    const Json model = json_object({{"type", "BPE"},
                                    {"ignore_merges", choice->ignore_merges},
                                    {"byte_fallback", false},
                                    {"fuse_unk", false},
                                    {"vocab", json_vocabulary(vocabulary)},
                                    {"merges", merges}});
    return json_object({{"added_tokens", json_added_tokens(vocabulary)},
                        {"normalizer", choice->normalizer},
                        {"pre_tokenizer", choice->pre_tokenizer},
                        {"post_processor", json_post_processor(vocabulary)},
                        {"decoder", byte_level(true)},
                        {"model", model}});
}

} // namespace

Result<Json> gguf_tokenizer(const CheckpointReader& gguf)
{
    auto vocabulary = read_vocabulary(gguf);
    if (!vocabulary)
        return vocabulary.error();
    const Json& metadata = gguf.metadata();
    const std::string model = metadata[std::string(k_prefix) + "model"].string();
    const bool pieces = model == "llama";
    vocabulary->adds_bos = metadata[std::string(k_prefix) + "add_bos_token"].boolean(pieces);
    vocabulary->space_in_front = metadata[std::string(k_prefix) + "add_space_prefix"].boolean(true);
    if (pieces) {
        auto json = sentence_piece_json(*vocabulary);
        if (!json)
            return json.error().in(gguf.path().string());
        return json;
    }
    if (model == "gpt2")
        return byte_level_bpe(*vocabulary, gguf);
    return bad_input("the tokenizer \"" + model.substr(0, 80) + "\" is not known; known: llama, gpt2",
                     place(gguf, "model"), "Open the safetensors version of the model");
}

} // namespace rankscope
