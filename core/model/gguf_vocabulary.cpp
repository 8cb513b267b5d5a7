// SPDX-License-Identifier: GPL-3.0-or-later
// A tokenizer.json as the vocabulary of a GGUF file: the way back from gguf_tokenizer.cpp. llama.cpp knows
// SentencePiece models by scores and byte-level ones by merges and the name of a regular expression.
#include "core/model/gguf_form.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

/// tokenizer.ggml.token_type
enum TokenType : std::int64_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

/// The regular expressions that llama.cpp calls llama-bpe and qwen2 (formats.md §9).
constexpr std::string_view k_llama3_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view k_qwen2_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The members of a Sequence, or the one thing itself.
std::vector<const Json*> steps(const Json& json, std::string_view list)
{
    if (json.is_null())
        return {};
    const Json::Array* members = json[list].array_if();
    if (!members)
        return {&json};
    std::vector<const Json*> result;
    for (const Json& member : *members)
        result.push_back(&member);
    return result;
}

bool has_step(const std::vector<const Json*>& all, std::string_view type)
{
    return std::any_of(all.begin(), all.end(),
                       [&](const Json* step) { return (*step)["type"].string() == type; });
}

/// "<0x0A>"
bool is_byte(const std::string& token)
{
    return token.size() == 6 && token.starts_with("<0x") && token.back() == '>';
}

std::pair<std::string, std::string> merge_of(const Json& merge)
{
    if (const Json::Array* pair = merge.array_if(); pair && pair->size() == 2)
        return {(*pair)[0].string(), (*pair)[1].string()};
    const std::string text = merge.string();
    const auto space = text.find(' ');
    return space == std::string::npos ? std::pair{text, std::string()}
                                      : std::pair{text.substr(0, space), text.substr(space + 1)};
}

class VocabularyMaker {
public:
    VocabularyMaker(const Model& model, const Json& tokenizer, fs::path folder)
        : model_(model), tokenizer_(tokenizer), folder_(std::move(folder)),
          pre_steps_(steps(tokenizer["pre_tokenizer"], "pretokenizers")),
          normal_steps_(steps(tokenizer["normalizer"], "normalizers"))
    {}

    Result<GgufValues> make()
    {
        if (auto listed = list_tokens(); !listed)
            return listed.error();
        const bool byte_level = has_step(pre_steps_, "ByteLevel");
        if (byte_level) {
            auto name = regex_name();
            if (!name)
                return name.error();
            values_["tokenizer.ggml.pre"] = {GgufType::Text, *name};
            add_merges();
        } else {
            values_["tokenizer.ggml.pre"] = {GgufType::Text, "default"};
            add_scores();
        }
        values_["tokenizer.ggml.model"] = {GgufType::Text, byte_level ? "gpt2" : "llama"};
        const bool prefix =
            !byte_level && (has_step(normal_steps_, "Prepend") || has_step(pre_steps_, "Metaspace"));
        values_["tokenizer.ggml.add_space_prefix"] = {GgufType::Flag, prefix};
        if (auto added = add_specials(); !added)
            return added.error();
        finish_tokens();
        return std::move(values_);
    }

private:
    Error unknown(const std::string& what) const
    {
        return usage_error("llama.cpp has no name for " + what, (folder_ / "tokenizer.json").string(),
                           "Export in another format");
    }

    Status list_tokens()
    {
        const Json& bpe = tokenizer_["model"];
        const Json::Object* vocabulary = bpe["vocab"].object_if();
        if (!vocabulary)
            return unknown("a tokenizer without a vocabulary of its own");
        const auto count = static_cast<std::size_t>(model_.config().vocabulary);
        for (std::size_t i = 0; i < count; ++i)
            tokens_.push_back("[PAD" + std::to_string(i) + "]");
        types_.assign(count, Unused);
        const std::string none = bpe["unk_token"].string();
        const bool bytes = bpe["byte_fallback"].boolean();
        for (const auto& [text, id] : *vocabulary) {
            if (auto put = place(id.integer(-1), text,
                                 bytes && is_byte(text)          ? Byte
                                 : !none.empty() && text == none ? Unknown
                                                                 : Normal);
                !put)
                return put;
        }
        const Json::Array* added = tokenizer_["added_tokens"].array_if();
        for (std::size_t i = 0; added && i < added->size(); ++i) {
            const Json& token = (*added)[i];
            const std::string text = token["content"].string();
            const TokenType type = text == none                 ? Unknown
                                   : token["special"].boolean() ? Control
                                                                : UserDefined;
            if (auto put = place(token["id"].integer(-1), text, type); !put)
                return put;
        }
        return {};
    }

    Status place(std::int64_t id, const std::string& text, TokenType type)
    {
        if (id < 0 || id >= static_cast<std::int64_t>(tokens_.size()))
            return bad_input(
                "the token \"" + text.substr(0, 40) + "\" has the id " + std::to_string(id)
                    + ", but the model knows ids from 0 to " + std::to_string(tokens_.size() - 1),
                (folder_ / "tokenizer.json").string(), "Use the tokenizer that belongs to this model");
        tokens_[static_cast<std::size_t>(id)] = text;
        types_[static_cast<std::size_t>(id)] = type;
        ids_[text] = id;
        return {};
    }

    Result<std::string> regex_name() const
    {
        if (has_step(pre_steps_, "Digits"))
            return std::string("smollm");
        for (const Json* step : pre_steps_) {
            if ((*step)["type"].string() != "Split")
                continue;
            const std::string regex = (*step)["pattern"]["Regex"].string();
            if (regex == k_llama3_regex)
                return std::string("llama-bpe");
            if (regex == k_qwen2_regex)
                return std::string("qwen2");
            return unknown("the pre-tokenizer's regular expression " + regex.substr(0, 120));
        }
        return std::string("gpt-2");
    }

    void add_merges()
    {
        Json::Array merges;
        if (const Json::Array* all = tokenizer_["model"]["merges"].array_if()) {
            for (const Json& merge : *all) {
                const auto [left, right] = merge_of(merge);
                merges.emplace_back(left + " " + right);
            }
        }
        values_["tokenizer.ggml.merges"] = {GgufType::Text, std::move(merges)};
    }

    /// llama.cpp joins the neighbors whose joint token has the highest score, merges are listed in the order
    /// in which they are tried: a token's score is minus the place of the first merge that makes it.
    void add_scores()
    {
        const Json::Array* merges = tokenizer_["model"]["merges"].array_if();
        const auto count = static_cast<double>(merges ? merges->size() : 0);
        std::vector<double> scores(tokens_.size(), 0.0);
        for (std::size_t i = 0; i < scores.size(); ++i)
            scores[i] = types_[i] == Normal ? -count : 0.0; // characters come after all that is merged
        for (std::size_t i = merges ? merges->size() : 0; i-- > 0;) {
            const auto [left, right] = merge_of((*merges)[i]);
            if (const auto made = ids_.find(left + right); made != ids_.end())
                scores[static_cast<std::size_t>(made->second)] = -static_cast<double>(i);
        }
        values_["tokenizer.ggml.scores"] = {GgufType::F32, Json::Array(scores.begin(), scores.end())};
    }

    /// A special token's id, from tokenizer_config.json by its text, or from config.json.
    std::optional<std::int64_t> special(const Json& texts, const std::string& name) const
    {
        const Json& entry = texts[name + "_token"];
        const std::string text = entry.is_object() ? entry["content"].string() : entry.string();
        if (const auto found = ids_.find(text); !text.empty() && found != ids_.end())
            return found->second;
        const Json& id = model_.config().raw[name + "_token_id"];
        const Json::Array* list = id.array_if();
        const std::int64_t number = list && !list->empty() ? list->front().integer(-1) : id.integer(-1);
        return number >= 0 && number < static_cast<std::int64_t>(tokens_.size()) ? std::optional(number)
                                                                                 : std::nullopt;
    }

    Status add_specials()
    {
        Json texts;
        std::error_code ignored;
        if (const fs::path file = folder_ / "tokenizer_config.json"; fs::exists(file, ignored)) {
            auto read = Json::read(file);
            if (!read)
                return read.error();
            texts = std::move(*read);
        }
        for (const auto& [ours, theirs] :
             {std::pair{"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}}) {
            if (const auto id = special(texts, ours))
                values_["tokenizer.ggml." + std::string(theirs) + "_token_id"] = {GgufType::U32, *id};
        }
        auto tokenizer = model_.tokenizer();
        if (!tokenizer)
            return tokenizer.error();
        values_["tokenizer.ggml.add_bos_token"] = {GgufType::Flag, !(*tokenizer)->prefix().empty()};
        values_["tokenizer.ggml.add_eos_token"] = {GgufType::Flag, false};
        std::string chat = texts["chat_template"].string();
        if (const fs::path file = folder_ / "chat_template.jinja"; fs::exists(file, ignored)) {
            auto read = read_text_file(file);
            if (!read)
                return read.error();
            chat = std::move(*read);
        }
        if (!chat.empty())
            values_["tokenizer.chat_template"] = {GgufType::Text, chat};
        return {};
    }

    void finish_tokens()
    {
        values_["tokenizer.ggml.tokens"] = {GgufType::Text, Json::Array(tokens_.begin(), tokens_.end())};
        values_["tokenizer.ggml.token_type"] = {GgufType::I32, Json::Array(types_.begin(), types_.end())};
    }

    const Model& model_;
    const Json& tokenizer_;
    fs::path folder_;
    std::vector<const Json*> pre_steps_;
    std::vector<const Json*> normal_steps_;
    std::vector<std::string> tokens_;
    std::vector<std::int64_t> types_;
    std::unordered_map<std::string, std::int64_t> ids_;
    GgufValues values_;
};

/// What a GGUF file says of its own tokenizer, with the types that llama.cpp writes.
GgufValues copied(const Json& metadata)
{
    GgufValues values;
    const Json::Object* keys = metadata.object_if();
    for (auto key = keys->lower_bound("tokenizer.");
         key != keys->end() && key->first.starts_with("tokenizer."); ++key) {
        const Json::Array* list = key->second.array_if();
        if (list && list->empty())
            continue;
        const Json& one = list ? list->front() : key->second;
        const bool signed_list = list && one.is_integer();
        values[key->first] = {one.is_string()    ? GgufType::Text
                              : one.is_bool()    ? GgufType::Flag
                              : signed_list      ? GgufType::I32
                              : one.is_integer() ? GgufType::U32
                                                 : GgufType::F32,
                              key->second};
    }
    return values;
}

} // namespace

Result<GgufValues> gguf_vocabulary(const Model& model)
{
    if (is_gguf(model.checkpoint()))
        return copied(model.checkpoint().metadata());
    std::error_code ignored;
    const fs::path folder =
        fs::is_directory(model.path(), ignored) ? model.path() : model.path().parent_path();
    auto tokenizer = Json::read(folder / "tokenizer.json");
    if (!tokenizer)
        return tokenizer.error();
    return VocabularyMaker(model, *tokenizer, folder).make();
}

} // namespace rankscope
