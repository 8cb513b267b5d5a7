// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/gguf_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

namespace rankscope {
namespace {

constexpr char k_architecture_key[] = "general.architecture";

/// One family of llama.cpp whose tensors and keys are known.
struct Family {
    std::string_view id; ///< general.architecture
    std::string_view transformers_id;
    bool permuted_rows; ///< q and k rows stand in neighboring pairs
};
constexpr std::array k_families = {Family{"llama", "llama", true}};

Result<Family> family_of(const CheckpointReader& gguf)
{
    const std::string id = gguf.metadata()[k_architecture_key].string();
    std::string known;
    for (const Family& family : k_families) {
        if (family.id == id)
            return family;
        known += (known.empty() ? "" : ", ") + std::string(family.id);
    }
    return bad_input("the GGUF architecture \"" + id.substr(0, 80) + "\" is not known; known: " + known,
                     gguf.path().string() + ": key " + k_architecture_key,
                     "Open a model of one of these families");
}

/// A tensor's stem and Hugging Face's for it.
struct NamePair {
    std::string_view gguf;
    std::string_view hugging_face;
};
constexpr std::array k_model_names = {
    NamePair{"token_embd", "model.embed_tokens"},
    NamePair{"output_norm", "model.norm"},
    NamePair{"output", "lm_head"},
};
constexpr std::array k_block_names = {
    NamePair{"attn_norm", "input_layernorm"}, NamePair{"ffn_norm", "post_attention_layernorm"},
    NamePair{"attn_q", "self_attn.q_proj"},   NamePair{"attn_k", "self_attn.k_proj"},
    NamePair{"attn_v", "self_attn.v_proj"},   NamePair{"attn_output", "self_attn.o_proj"},
    NamePair{"ffn_gate", "mlp.gate_proj"},    NamePair{"ffn_up", "mlp.up_proj"},
    NamePair{"ffn_down", "mlp.down_proj"},
};

/// "blk.3.attn_q.weight" → "model.layers.3.self_attn.q_proj.weight"; nothing for names without a counterpart.
std::optional<std::string> hugging_face_name(std::string_view name)
{
    const auto dot = name.rfind('.');
    if (dot == std::string_view::npos)
        return std::nullopt;
    const std::string_view suffix = name.substr(dot);
    std::string_view stem = name.substr(0, dot);
    for (const NamePair& pair : k_model_names) {
        if (pair.gguf == stem)
            return std::string(pair.hugging_face) + std::string(suffix);
    }
    if (!stem.starts_with("blk."))
        return std::nullopt;
    stem.remove_prefix(4);
    const auto end = stem.find('.');
    if (end == std::string_view::npos || end == 0)
        return std::nullopt;
    for (const NamePair& pair : k_block_names) {
        if (pair.gguf == stem.substr(end + 1))
            return "model.layers." + std::string(stem.substr(0, end)) + "." + std::string(pair.hugging_face)
                   + std::string(suffix);
    }
    return std::nullopt;
}

class RenamedGguf : public CheckpointReader {
public:
    RenamedGguf(std::unique_ptr<CheckpointReader> gguf, bool permuted, Index heads, Index kv_heads)
        : gguf_(std::move(gguf)), permuted_(permuted), heads_(heads), kv_heads_(kv_heads)
    {
        for (const TensorInfo& tensor : gguf_->tensors()) {
            if (tensor.name == "rope_freqs.weight")
                continue;
            TensorInfo renamed = tensor;
            renamed.name = hugging_face_name(tensor.name).value_or(tensor.name);
            stored_name_[renamed.name] = tensor.name;
            tensors_.push_back(std::move(renamed));
        }
        std::sort(tensors_.begin(), tensors_.end(),
                  [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    }

    const std::filesystem::path& path() const override { return gguf_->path(); }
    std::span<const std::filesystem::path> files() const override { return gguf_->files(); }
    std::span<const TensorInfo> tensors() const override { return tensors_; }
    const Json& metadata() const override { return gguf_->metadata(); }
    std::string header_hash() const override { return gguf_->header_hash(); }
    Result<TensorView> view(std::string_view name) const override { return gguf_->view(stored(name)); }

    Result<Matrix> read(std::string_view name) const override
    {
        auto matrix = gguf_->read(stored(name));
        if (!matrix || !permuted_)
            return matrix;
        if (name.find(".q_proj.") != std::string_view::npos)
            return unpermuted(std::move(*matrix), heads_);
        if (name.find(".k_proj.") != std::string_view::npos)
            return unpermuted(std::move(*matrix), kv_heads_);
        return matrix;
    }

private:
    std::string_view stored(std::string_view name) const
    {
        const auto found = stored_name_.find(name);
        return found == stored_name_.end() ? name : std::string_view(found->second);
    }

    /// llama.cpp turns neighboring rows (2i, 2i + 1) of a head, Hugging Face (i, i + d/2). A bias is one row
    /// of columns.
    static Matrix unpermuted(Matrix matrix, Index heads)
    {
        const bool bias = matrix.rows() == 1;
        const Index rows = bias ? matrix.cols() : matrix.rows();
        if (heads < 1 || rows % (2 * heads) != 0)
            return matrix;
        const Index half = rows / heads / 2;
        Matrix result(matrix.rows(), matrix.cols());
        for (Index head = 0; head < heads; ++head) {
            for (Index i = 0; i < half; ++i) {
                for (const Index part : {Index{0}, Index{1}}) {
                    const Index to = (2 * head + part) * half + i;
                    const Index from = 2 * (head * half + i) + part;
                    if (bias)
                        result(0, to) = matrix(0, from);
                    else
                        result.row(to) = matrix.row(from);
                }
            }
        }
        return result;
    }

    std::unique_ptr<CheckpointReader> gguf_;
    bool permuted_;
    Index heads_;
    Index kv_heads_;
    std::vector<TensorInfo> tensors_;
    std::map<std::string, std::string, std::less<>> stored_name_;
};

/// A float32 value written as the decimal number that was meant: 1e-5, not 9.99999974737875e-06.
double shortest(double value)
{
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
    double result = value;
    std::from_chars(text, end, result);
    return result;
}

Status add_rope(const Json& metadata, const std::string& prefix, const CheckpointReader& gguf, Json& config)
{
    if (const Json* theta = metadata.find(prefix + "rope.freq_base"))
        config.set("rope_theta", shortest(theta->number()));
    if (gguf.find("rope_freqs.weight"))
        return bad_input("frequency factors of its own (Llama 3.1 and later) are not read from GGUF yet",
                         gguf.path().string() + ": tensor rope_freqs.weight",
                         "Open the safetensors version of the model");
    const std::string kind = metadata[prefix + "rope.scaling.type"].string("none");
    if (kind == "none")
        return {};
    Json scaling;
    scaling.set("rope_type", kind);
    scaling.set("factor", shortest(metadata[prefix + "rope.scaling.factor"].number(1.0)));
    config.set("rope_scaling", std::move(scaling));
    return {};
}

} // namespace

bool is_gguf(const CheckpointReader& reader) { return reader.metadata().find(k_architecture_key) != nullptr; }

Result<Json> gguf_config(const CheckpointReader& gguf)
{
    const auto family = family_of(gguf);
    if (!family)
        return family.error();
    const Json& metadata = gguf.metadata();
    const std::string prefix = std::string(family->id) + ".";
    Json config;
    config.set("model_type", family->transformers_id);
    static constexpr std::array<NamePair, 7> k_keys = {{
        {"embedding_length", "hidden_size"},
        {"feed_forward_length", "intermediate_size"},
        {"block_count", "num_hidden_layers"},
        {"attention.head_count", "num_attention_heads"},
        {"attention.head_count_kv", "num_key_value_heads"},
        {"attention.key_length", "head_dim"},
        {"context_length", "max_position_embeddings"},
    }};
    for (const NamePair& key : k_keys) {
        if (const Json* value = metadata.find(prefix + std::string(key.gguf)))
            config.set(key.hugging_face, *value);
    }
    if (const Json* epsilon = metadata.find(prefix + "attention.layer_norm_rms_epsilon"))
        config.set("rms_norm_eps", shortest(epsilon->number()));
    const TensorInfo* embedding = gguf.find("token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
        return bad_input("there is no tensor token_embd.weight with two dimensions", gguf.path().string());
    config.set("vocab_size", embedding->shape.front());
    config.set("tie_word_embeddings", gguf.find("output.weight") == nullptr);
    config.set("attention_bias", gguf.find("blk.0.attn_q.bias") != nullptr);
    if (auto rope = add_rope(metadata, prefix, gguf, config); !rope)
        return rope.error();
    return config;
}

Result<std::unique_ptr<CheckpointReader>> gguf_with_hugging_face_names(std::unique_ptr<CheckpointReader> gguf)
{
    const auto family = family_of(*gguf);
    if (!family)
        return family.error();
    const std::string prefix = std::string(family->id) + ".attention.";
    const Index heads = gguf->metadata()[prefix + "head_count"].integer();
    const Index kv_heads = gguf->metadata()[prefix + "head_count_kv"].integer(heads);
    return std::unique_ptr<CheckpointReader>(
        std::make_unique<RenamedGguf>(std::move(gguf), family->permuted_rows, heads, kv_heads));
}

} // namespace rankscope
