// SPDX-License-Identifier: GPL-3.0-or-later
// Order of work (formats.md, section 9): added tokens are cut out of the raw text, each stretch between them
// is normalized and searched for the added tokens that are looked for after the normalizer, what remains is
// cut into pieces by the pre-tokenizer, and each piece is encoded by byte-pair merges.
#include "core/model/tokenizer.h"

#include "core/model/detail/added_tokens.h"
#include "core/model/detail/bpe.h"
#include "core/model/detail/decoder.h"
#include "core/model/detail/normalizer.h"
#include "core/model/detail/pre_tokenizer.h"
#include "core/model/detail/sentence_piece_model.h"
#include "core/model/detail/steps.h"
#include "core/model/detail/utf8.h"

#include <limits>
#include <unordered_map>

namespace rankscope {
namespace {

using namespace detail;

constexpr std::size_t k_max_file = std::size_t{256} << 20;
constexpr std::size_t k_max_text = std::size_t{1} << 30; // symbols of one piece are counted with 32 bits

/// Tokens of pieces that have been seen: words repeat.
class PieceCache {
public:
    explicit PieceCache(const BytePairModel& model) : model_(model) {}

    void encode(const std::string& piece, std::vector<TokenId>& ids)
    {
        if (piece.size() > k_max_piece)
            return model_.encode(piece, ids);
        const auto found = known_.find(piece);
        if (found != known_.end()) {
            ids.insert(ids.end(), found->second.begin(), found->second.end());
            return;
        }
        std::vector<TokenId> own;
        model_.encode(piece, own);
        ids.insert(ids.end(), own.begin(), own.end());
        if (known_.size() < k_max_entries)
            known_.emplace(piece, std::move(own));
    }

private:
    static constexpr std::size_t k_max_piece = 48;
    static constexpr std::size_t k_max_entries = 100'000;

    const BytePairModel& model_;
    std::unordered_map<std::string, std::vector<TokenId>> known_;
};

class BpeTokenizer : public Tokenizer {
public:
    static Result<std::shared_ptr<const Tokenizer>> parse(const Json& json);

    Result<std::vector<TokenId>> encode(std::string_view text) const override;
    std::span<const TokenId> prefix() const override { return prefix_; }
    std::string decode(std::span<const TokenId> ids) const override;
    std::string token_text(TokenId id) const override
    {
        return id >= 0 && static_cast<std::size_t>(id) < texts_.size() ? texts_[static_cast<std::size_t>(id)]
                                                                       : "";
    }
    std::size_t vocabulary() const override { return texts_.size(); }

private:
    Status add_tokens(const Json& json);
    Status add_prefix(const Json& processor);
    Status add_template(const Json& processor);
    void set_text(TokenId id, const std::string& text);
    Status encode_stretch(std::string text, bool at_text_start, PieceCache& cache,
                          std::vector<TokenId>& ids) const;

    BytePairModel model_;
    Normalizer normalizer_;
    PreTokenizer pre_tokenizer_;
    Decoder decoder_;
    AddedTokenFinder raw_tokens_;        ///< looked for in the raw text
    AddedTokenFinder normalized_tokens_; ///< looked for after the normalizer
    std::vector<TokenId> prefix_;
    std::vector<std::string> texts_; ///< by id
    std::vector<bool> known_;        ///< by id: there is such a token, if only an empty one
};

Result<std::shared_ptr<const Tokenizer>> BpeTokenizer::parse(const Json& json)
{
    if (!json.is_object())
        return bad_input("an object was expected");
    auto tokenizer = std::make_shared<BpeTokenizer>();
    auto model = BytePairModel::parse(json["model"]);
    if (!model)
        return model.error();
    auto normalizer = Normalizer::parse(json["normalizer"]);
    if (!normalizer)
        return normalizer.error();
    auto pre_tokenizer = PreTokenizer::parse(json["pre_tokenizer"]);
    if (!pre_tokenizer)
        return pre_tokenizer.error();
    auto decoder = Decoder::parse(json["decoder"]);
    if (!decoder)
        return decoder.error();
    tokenizer->model_ = std::move(*model);
    tokenizer->normalizer_ = std::move(*normalizer);
    tokenizer->pre_tokenizer_ = std::move(*pre_tokenizer);
    tokenizer->decoder_ = std::move(*decoder);
    if (auto added = tokenizer->add_tokens(json["added_tokens"]); !added)
        return added.error();
    const auto added_prefix = for_each_step(json["post_processor"], "processors", [&](const Json& processor) {
        return tokenizer->add_prefix(processor);
    });
    if (!added_prefix)
        return added_prefix.error().in("post_processor");
    return std::shared_ptr<const Tokenizer>(std::move(tokenizer));
}

void BpeTokenizer::set_text(TokenId id, const std::string& text)
{
    const auto index = static_cast<std::size_t>(id);
    if (index >= texts_.size()) {
        texts_.resize(index + 1);
        known_.resize(index + 1);
    }
    texts_[index] = text;
    known_[index] = true;
}

Status BpeTokenizer::add_tokens(const Json& json)
{
    for (const auto& [text, id] : model_.vocabulary())
        set_text(id, text);
    auto tokens = parse_added_tokens(json);
    if (!tokens)
        return tokens.error();
    for (AddedToken& token : *tokens) {
        const TokenId other = model_.find(token.content);
        if (other >= 0 && other != token.id)
            return bad_input("\"" + token.content + "\" has the id " + std::to_string(token.id) + " here and "
                                 + std::to_string(other) + " in the vocabulary",
                             "added_tokens");
        set_text(token.id, token.content);
        if (token.normalized) {
            normalizer_.apply(token.content);
            normalized_tokens_.add(std::move(token));
        } else {
            raw_tokens_.add(std::move(token));
        }
    }
    return {};
}

Status BpeTokenizer::add_prefix(const Json& processor)
{
    const std::string type = processor["type"].string();
    if (type == "ByteLevel") // only moves offsets
        return {};
    if (type == "TemplateProcessing")
        return add_template(processor);
    return bad_input("\"" + type
                     + "\" is not known or not complete; known: TemplateProcessing, ByteLevel, Sequence");
}

/// What stands in front of the text in the template for a single text. What follows it (an end mark) is for
/// sentences, not for text that goes on.
Status BpeTokenizer::add_template(const Json& processor)
{
    const auto* parts = processor["single"].array_if();
    if (!parts)
        return bad_input("\"single\" is missing", "TemplateProcessing");
    for (const Json& part : *parts) {
        if (part.find("Sequence"))
            return {};
        const std::string name = part["SpecialToken"]["id"].string();
        const auto* ids = processor["special_tokens"][name]["ids"].array_if();
        if (!ids)
            return bad_input("the ids of \"" + name + "\" are missing", "TemplateProcessing");
        for (const Json& id : *ids) {
            const std::int64_t value = id.is_integer() ? id.integer() : -1;
            if (value < 0 || value >= static_cast<std::int64_t>(known_.size())
                || !known_[static_cast<std::size_t>(value)])
                return bad_input("\"" + name + "\" has an id that no token has", "TemplateProcessing");
            prefix_.push_back(static_cast<TokenId>(value));
        }
    }
    return bad_input("\"single\" does not say where the text stands", "TemplateProcessing");
}

Status BpeTokenizer::encode_stretch(std::string text, bool at_text_start, PieceCache& cache,
                                    std::vector<TokenId>& ids) const
{
    normalizer_.apply(text);
    for (const Stretch& stretch : normalized_tokens_.cut(text)) {
        if (stretch.id >= 0) {
            ids.push_back(stretch.id);
            continue;
        }
        Pieces pieces{{text.substr(stretch.begin, stretch.end - stretch.begin)},
                      at_text_start && stretch.begin == 0};
        if (auto cut = pre_tokenizer_.apply(pieces); !cut)
            return cut;
        for (const std::string& piece : pieces.texts)
            cache.encode(piece, ids);
    }
    return {};
}

Result<std::vector<TokenId>> BpeTokenizer::encode(std::string_view text) const
{
    if (text.size() > k_max_text)
        return bad_input("the text has " + std::to_string(text.size()) + " bytes, more than the "
                             + std::to_string(k_max_text) + " that are accepted at once",
                         {}, "Use a part of it");
    if (const auto invalid = first_invalid_utf8(text))
        return bad_input("the text is not valid UTF-8 at byte " + std::to_string(*invalid), {},
                         "Save the text in the encoding UTF-8");
    std::vector<TokenId> ids;
    PieceCache cache(model_);
    for (const Stretch& stretch : raw_tokens_.cut(text)) {
        if (stretch.id >= 0) {
            ids.push_back(stretch.id);
            continue;
        }
        const std::string_view part = text.substr(stretch.begin, stretch.end - stretch.begin);
        if (auto encoded = encode_stretch(std::string(part), stretch.begin == 0, cache, ids); !encoded)
            return encoded.error();
    }
    return ids;
}

std::string BpeTokenizer::decode(std::span<const TokenId> ids) const
{
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const TokenId id : ids) {
        if (id >= 0 && static_cast<std::size_t>(id) < texts_.size() && known_[static_cast<std::size_t>(id)])
            tokens.push_back(texts_[static_cast<std::size_t>(id)]);
    }
    return decoder_.apply(std::move(tokens));
}

} // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::parse(const Json& tokenizer_json)
{
    return BpeTokenizer::parse(tokenizer_json);
}

namespace {

/// What tokenizer_config.json and added_tokens.json beside a tokenizer.model say of it: whether BOS is put in
/// front, and tokens that were added later.
Status read_companions(const std::filesystem::path& folder, Vocabulary& vocabulary, Json::Array& added)
{
    std::error_code problem;
    if (const auto file = folder / "tokenizer_config.json"; std::filesystem::exists(file, problem)) {
        const auto config = Json::read(file, JsonLimits{k_max_file, 64});
        if (!config)
            return config.error();
        vocabulary.adds_bos = (*config)["add_bos_token"].boolean(true);
        if (const auto* tokens = (*config)["added_tokens_decoder"].object_if()) {
            for (const auto& [id, token] : *tokens) {
                const auto number = Json::parse(id);
                if (!number || !number->is_integer() || !token.is_object())
                    return bad_input("an id and what stands for it were expected",
                                     file.string() + ": added_tokens_decoder");
                Json entry = token;
                entry.set("id", *number);
                added.push_back(std::move(entry));
            }
            return {};
        }
    }
    if (const auto file = folder / "added_tokens.json"; std::filesystem::exists(file, problem)) {
        const auto tokens = Json::read(file, JsonLimits{k_max_file, 64});
        if (!tokens)
            return tokens.error();
        if (!tokens->is_object())
            return bad_input("an object of tokens and ids was expected", file.string());
        for (const auto& [content, id] : *tokens->object_if())
            added.push_back(
                json_object({{"id", id}, {"content", content}, {"normalized", false}, {"special", false}}));
    }
    return {};
}

Result<std::shared_ptr<const Tokenizer>> read_sentence_piece(const std::filesystem::path& file)
{
    const auto bytes = read_text_file(file, k_max_file);
    if (!bytes)
        return bytes.error();
    auto vocabulary = parse_sentence_piece_model(*bytes);
    if (!vocabulary)
        return vocabulary.error().in(file.string());
    Json::Array added;
    if (auto read = read_companions(file.parent_path(), *vocabulary, added); !read)
        return read.error();
    auto json = sentence_piece_json(*vocabulary);
    if (!json)
        return json.error().in(file.string());
    if (!added.empty()) { // the later word on a token counts
        Json::Array all = *(*json)["added_tokens"].array_if();
        for (Json& token : added) {
            std::erase_if(all, [&](const Json& one) { return one["id"] == token["id"]; });
            all.push_back(std::move(token));
        }
        json->set("added_tokens", std::move(all));
    }
    auto tokenizer = Tokenizer::parse(*json);
    if (!tokenizer)
        return tokenizer.error().in(file.string());
    return tokenizer;
}

} // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::read(const std::filesystem::path& folder_or_file)
{
    std::error_code problem;
    std::filesystem::path file = folder_or_file;
    if (std::filesystem::is_directory(file, problem)) {
        file /= "tokenizer.json";
        const std::filesystem::path model = folder_or_file / "tokenizer.model";
        if (!std::filesystem::exists(file, problem) && std::filesystem::exists(model, problem))
            file = model;
        else if (!std::filesystem::exists(file, problem))
            return bad_input(
                "the file is missing, and so is tokenizer.model; without one of them text cannot be "
                "turned into tokens",
                file.string(), "Download tokenizer.json of the model into the same folder");
    }
    if (file.extension() == ".model")
        return read_sentence_piece(file);
    const auto json = Json::read(file, JsonLimits{k_max_file, 64});
    if (!json)
        return json.error();
    auto tokenizer = parse(*json);
    if (!tokenizer)
        return tokenizer.error().in(file.string());
    return tokenizer;
}

} // namespace rankscope
