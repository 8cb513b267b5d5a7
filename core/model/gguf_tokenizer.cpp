// SPDX-License-Identifier: GPL-3.0-or-later
// GGUF stores a vocabulary, merges or scores, and the name of a regular expression; from them this makes the
// tokenizer.json that Hugging Face would have, so that one tokenizer serves both.
#include "core/model/gguf_model.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace rankscope {
namespace {

constexpr char k_prefix[] = "tokenizer.ggml.";
constexpr char k_space[] = "\u2581"; // the sign that stands for a space

/// tokenizer.ggml.token_type
enum TokenType : std::int64_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

struct Vocabulary {
    const Json& metadata;
    std::vector<std::string> tokens;
    std::vector<std::int64_t> types;

    std::optional<std::int64_t> special(const std::string& which) const
    {
        const Json* id = metadata.find(k_prefix + which + "_token_id");
        if (!id || !id->is_integer() || id->integer() < 0
            || id->integer() >= static_cast<std::int64_t>(tokens.size()))
            return std::nullopt;
        return id->integer();
    }
};

Result<Vocabulary> read_vocabulary(const CheckpointReader& gguf)
{
    Vocabulary vocabulary{gguf.metadata(), {}, {}};
    const auto* tokens = gguf.metadata()["tokenizer.ggml.tokens"].array_if();
    if (!tokens || tokens->empty())
        return bad_input("the file holds no vocabulary", gguf.path().string() + ": key tokenizer.ggml.tokens",
                         "Put the model's tokenizer.json beside it");
    for (const Json& token : *tokens)
        vocabulary.tokens.push_back(token.string());
    vocabulary.types.assign(tokens->size(), Normal);
    if (const auto* types = gguf.metadata()["tokenizer.ggml.token_type"].array_if()) {
        if (types->size() != tokens->size())
            return bad_input("it has " + std::to_string(types->size()) + " entries for "
                                 + std::to_string(tokens->size()) + " tokens",
                             gguf.path().string() + ": key tokenizer.ggml.token_type");
        for (std::size_t i = 0; i < types->size(); ++i)
            vocabulary.types[i] = (*types)[i].integer(Normal);
    }
    return vocabulary;
}

Json object(std::initializer_list<std::pair<const char*, Json>> members)
{
    Json result;
    for (const auto& [key, value] : members)
        result.set(key, value);
    return result;
}

Json vocabulary_json(const Vocabulary& vocabulary)
{
    Json::Object ids;
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i)
        ids.emplace(vocabulary.tokens[i], static_cast<std::int64_t>(i)); // the first of equals keeps its id
    return ids;
}

Json added_tokens(const Vocabulary& vocabulary)
{
    Json::Array added;
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        const std::int64_t type = vocabulary.types[i];
        if ((type != Control && type != UserDefined && type != Unknown) || vocabulary.tokens[i].empty())
            continue;
        added.push_back(object({{"id", static_cast<std::int64_t>(i)},
                                {"content", vocabulary.tokens[i]},
                                {"single_word", false},
                                {"lstrip", false},
                                {"rstrip", false},
                                {"normalized", false},
                                {"special", type != UserDefined}}));
    }
    return added;
}

/// BOS in front, when the file says so (SentencePiece models: unless it says no).
Json post_processor(const Vocabulary& vocabulary, bool by_default)
{
    const auto bos = vocabulary.special("bos");
    if (!bos || !vocabulary.metadata[std::string(k_prefix) + "add_bos_token"].boolean(by_default))
        return {};
    const std::string text = vocabulary.tokens[static_cast<std::size_t>(*bos)];
    const Json special = object({{"SpecialToken", object({{"id", text}, {"type_id", 0}})}});
    const Json sequence = object({{"Sequence", object({{"id", "A"}, {"type_id", 0}})}});
    Json specials;
    specials.set(
        text, object({{"id", text}, {"ids", Json::Array{Json(*bos)}}, {"tokens", Json::Array{Json(text)}}}));
    return object({{"type", "TemplateProcessing"},
                   {"single", Json::Array{special, sequence}},
                   {"pair", Json::Array{special, sequence}},
                   {"special_tokens", specials}});
}

/// Number of bytes of the UTF-8 character that starts at `text[i]`.
std::size_t character_length(const std::string& text, std::size_t i)
{
    std::size_t length = 1;
    while (i + length < text.size() && (static_cast<unsigned char>(text[i + length]) & 0xC0U) == 0x80U)
        ++length;
    return length;
}

/// SentencePiece merges the pair whose result scores best; as a rank list: every split of a piece into two
/// pieces, sorted by the piece's score, then by ids (formats.md §9).
Json merges_from_scores(const Vocabulary& vocabulary, const Json::Array& scores)
{
    std::unordered_map<std::string, std::size_t> mergeable;
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        const std::int64_t type = vocabulary.types[i];
        if (type == Normal || type == UserDefined || type == Unused)
            mergeable.emplace(vocabulary.tokens[i], i);
    }
    std::vector<std::tuple<double, std::size_t, std::size_t, std::size_t>> splits;
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        const std::string& piece = vocabulary.tokens[i];
        if (vocabulary.types[i] != Normal && vocabulary.types[i] != UserDefined)
            continue;
        for (std::size_t cut = piece.empty() ? 0 : character_length(piece, 0); cut < piece.size();
             cut += character_length(piece, cut)) {
            const auto left = mergeable.find(piece.substr(0, cut));
            const auto right = mergeable.find(piece.substr(cut));
            if (left != mergeable.end() && right != mergeable.end())
                splits.emplace_back(-scores[i].number(), i, left->second, right->second);
        }
    }
    std::sort(splits.begin(), splits.end());
    Json::Array merges;
    merges.reserve(splits.size());
    for (const auto& [score, piece, left, right] : splits)
        merges.push_back(Json::Array{Json(vocabulary.tokens[left]), Json(vocabulary.tokens[right])});
    return merges;
}

Result<Json> sentence_piece(const Vocabulary& vocabulary, const CheckpointReader& gguf)
{
    const auto* scores = vocabulary.metadata["tokenizer.ggml.scores"].array_if();
    if (!scores || scores->size() != vocabulary.tokens.size())
        return bad_input("there is not one score for each token",
                         gguf.path().string() + ": key tokenizer.ggml.scores");
    Json::Array normalizers;
    const bool prefix = vocabulary.metadata["tokenizer.ggml.add_space_prefix"].boolean(true);
    if (prefix)
        normalizers.push_back(object({{"type", "Prepend"}, {"prepend", k_space}}));
    normalizers.push_back(
        object({{"type", "Replace"}, {"pattern", object({{"String", " "}})}, {"content", k_space}}));
    Json::Array decoders = {
        object({{"type", "Replace"}, {"pattern", object({{"String", k_space}})}, {"content", " "}}),
        object({{"type", "ByteFallback"}}), object({{"type", "Fuse"}})};
    if (prefix)
        decoders.push_back(object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}));
    const auto unknown = vocabulary.special("unknown");
    const bool bytes = std::find(vocabulary.types.begin(), vocabulary.types.end(), std::int64_t{Byte})
                       != vocabulary.types.end();
    const Json model =
        object({{"type", "BPE"},
                {"unk_token", unknown ? Json(vocabulary.tokens[static_cast<std::size_t>(*unknown)]) : Json()},
                {"fuse_unk", true},
                {"byte_fallback", bytes},
                {"vocab", vocabulary_json(vocabulary)},
                {"merges", merges_from_scores(vocabulary, *scores)}});
    return object({{"added_tokens", added_tokens(vocabulary)},
                   {"normalizer", object({{"type", "Sequence"}, {"normalizers", normalizers}})},
                   {"pre_tokenizer", Json()},
                   {"post_processor", post_processor(vocabulary, true)},
                   {"decoder", object({{"type", "Sequence"}, {"decoders", decoders}})},
                   {"model", model}});
}

/// What cuts the text before merging, by its name in the file.
struct PreTokenizerChoice {
    Json pre_tokenizer;
    Json normalizer;
    bool ignore_merges = false;
};

Json byte_level(bool use_regex)
{
    return object({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", use_regex}});
}

Json sequence_of(Json first, Json second)
{
    return object(
        {{"type", "Sequence"}, {"pretokenizers", Json::Array{std::move(first), std::move(second)}}});
}

Json split_by(const char* digits)
{
    const std::string regex = std::string(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})")
                              + digits + R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    return object({{"type", "Split"},
                   {"pattern", object({{"Regex", regex}})},
                   {"behavior", "Isolated"},
                   {"invert", false}});
}

Result<PreTokenizerChoice> pre_tokenizer_named(const std::string& name, const CheckpointReader& gguf)
{
    PreTokenizerChoice choice;
    if (name.empty() || name == "default" || name == "gpt-2" || name == "gpt2") {
        choice.pre_tokenizer = byte_level(true);
    } else if (name == "smollm" || name == "starcoder" || name == "refact" || name == "command-r") {
        choice.pre_tokenizer =
            sequence_of(object({{"type", "Digits"}, {"individual_digits", true}}), byte_level(true));
    } else if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
        choice.pre_tokenizer = sequence_of(split_by("{1,3}"), byte_level(false));
        choice.ignore_merges = true;
    } else if (name == "qwen2") {
        choice.pre_tokenizer = sequence_of(split_by(""), byte_level(false));
        choice.normalizer = object({{"type", "NFC"}});
    } else {
        return bad_input("the pre-tokenizer \"" + name.substr(0, 80)
                             + "\" is not known; known: default, gpt-2, smollm, starcoder, refact, "
                               "command-r, llama-bpe, qwen2",
                         gguf.path().string() + ": key tokenizer.ggml.pre",
                         "Open the safetensors version of the model");
    }
    return choice;
}

Result<Json> byte_level_bpe(const Vocabulary& vocabulary, const CheckpointReader& gguf)
{
    const Json& merges = vocabulary.metadata["tokenizer.ggml.merges"];
    if (!merges.is_array())
        return bad_input("there are no merges", gguf.path().string() + ": key tokenizer.ggml.merges");
    auto choice = pre_tokenizer_named(vocabulary.metadata["tokenizer.ggml.pre"].string(), gguf);
    if (!choice)
        return choice.error();
    const Json model = object({{"type", "BPE"},
                               {"ignore_merges", choice->ignore_merges},
                               {"byte_fallback", false},
                               {"fuse_unk", false},
                               {"vocab", vocabulary_json(vocabulary)},
                               {"merges", merges}});
    return object({{"added_tokens", added_tokens(vocabulary)},
                   {"normalizer", choice->normalizer},
                   {"pre_tokenizer", choice->pre_tokenizer},
                   {"post_processor", post_processor(vocabulary, false)},
                   {"decoder", byte_level(true)},
                   {"model", model}});
}

} // namespace

Result<Json> gguf_tokenizer(const CheckpointReader& gguf)
{
    const auto vocabulary = read_vocabulary(gguf);
    if (!vocabulary)
        return vocabulary.error();
    const std::string model = gguf.metadata()["tokenizer.ggml.model"].string();
    if (model == "llama")
        return sentence_piece(*vocabulary, gguf);
    if (model == "gpt2")
        return byte_level_bpe(*vocabulary, gguf);
    return bad_input("the tokenizer \"" + model.substr(0, 80) + "\" is not known; known: llama, gpt2",
                     gguf.path().string() + ": key tokenizer.ggml.model",
                     "Open the safetensors version of the model");
}

} // namespace rankscope
