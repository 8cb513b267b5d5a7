// SPDX-License-Identifier: GPL-3.0-or-later
// The families of llama.cpp that are known here, one function a family and its line in the list at the end.
// Names and keys are those of gguf-py; what the converter does to tensors is formats.md, section 2.
#include "core/model/detail/gguf_family.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace rankscope::detail {
namespace {

std::vector<GgufKey> common_keys()
{
    return {
        {"context_length", "max_position_embeddings", KeyKind::Whole, true},
        {"embedding_length", "hidden_size", KeyKind::Whole, true},
        {"feed_forward_length", "intermediate_size", KeyKind::Whole, true},
        {"block_count", "num_hidden_layers", KeyKind::Whole, true},
        {"attention.head_count", "num_attention_heads", KeyKind::Whole, true},
        {"attention.head_count_kv", "num_key_value_heads"},
        {"attention.key_length", "head_dim"},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps", KeyKind::Real, true},
        {"rope.freq_base", "rope_theta", KeyKind::Real},
    };
}

/// Llama's names, with rows in the order that `rows` says.
GgufFamily llama_like(std::string_view id, std::string_view transformers_id, bool paired_rows)
{
    GgufFamily family;
    family.id = id;
    family.transformers_id = transformers_id;
    family.model_names = {
        {"token_embd", "model.embed_tokens"},
        {"output_norm", "model.norm"},
        {"output", "lm_head"},
    };
    family.block_names = {
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"attn_q", "self_attn.q_proj", paired_rows ? Stored::PairedQueryRows : Stored::AsIs},
        {"attn_k", "self_attn.k_proj", paired_rows ? Stored::PairedKeyRows : Stored::AsIs},
        {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
    };
    family.keys = common_keys();
    return family;
}

/// Takes an entry's Hugging Face name and form anew; adds the entry if it is not there.
void rename(GgufFamily& family, const GgufName& name)
{
    auto& names = family.block_names;
    const auto found = std::find_if(names.begin(), names.end(),
                                    [&](const GgufName& known) { return known.gguf == name.gguf; });
    if (found == names.end())
        names.push_back(name);
    else
        *found = name;
}

GgufFamily llama() { return llama_like("llama", "llama", true); }

/// llama.cpp calls Mistral llama; a file that gives a window means it.
GgufFamily mistral()
{
    GgufFamily family = llama_like("llama", "mistral", true);
    family.when = "attention.sliding_window";
    family.keys.push_back({"attention.sliding_window", "sliding_window"});
    return family;
}

/// Mixtral is called llama too. Early files have one tensor for each expert.
GgufFamily mixtral()
{
    GgufFamily family = llama_like("llama", "mixtral", true);
    family.when = "expert_count";
    family.keys.push_back({"expert_count", "num_local_experts", KeyKind::Whole, true});
    family.keys.push_back({"expert_used_count", "num_experts_per_tok", KeyKind::Whole, true});
    std::erase_if(family.block_names, [](const GgufName& name) { return name.gguf.starts_with("ffn_g"); });
    rename(family, {"ffn_gate_inp", "block_sparse_moe.gate"});
    rename(family, {"ffn_gate_exps", "block_sparse_moe.experts.#.w1", Stored::Experts});
    rename(family, {"ffn_up_exps", "block_sparse_moe.experts.#.w3", Stored::Experts});
    rename(family, {"ffn_down_exps", "block_sparse_moe.experts.#.w2", Stored::Experts});
    rename(family, {"ffn_gate.#", "block_sparse_moe.experts.#.w1"});
    rename(family, {"ffn_up.#", "block_sparse_moe.experts.#.w3"});
    rename(family, {"ffn_down.#", "block_sparse_moe.experts.#.w2"});
    family.complete = [](const GgufMetadata&, Json& config) {
        config.set("sliding_window", Json()); // absent would mean transformers' default
        return Status{};
    };
    return family;
}

GgufFamily qwen2() { return llama_like("qwen2", "qwen2", false); }

GgufFamily qwen3()
{
    GgufFamily family = llama_like("qwen3", "qwen3", false);
    rename(family, {"attn_q_norm", "self_attn.q_norm"});
    rename(family, {"attn_k_norm", "self_attn.k_norm"});
    return family;
}

void add_qwen_experts(GgufFamily& family)
{
    rename(family, {"ffn_gate_inp", "mlp.gate"});
    rename(family, {"ffn_gate_exps", "mlp.experts.#.gate_proj", Stored::Experts});
    rename(family, {"ffn_up_exps", "mlp.experts.#.up_proj", Stored::Experts});
    rename(family, {"ffn_down_exps", "mlp.experts.#.down_proj", Stored::Experts});
    for (GgufKey& key : family.keys) {
        if (key.gguf == "feed_forward_length")
            key.required = false; // no block needs it
    }
    family.keys.push_back({"expert_count", "num_experts", KeyKind::Whole, true});
    family.keys.push_back({"expert_used_count", "num_experts_per_tok", KeyKind::Whole, true});
    family.keys.push_back({"expert_feed_forward_length", "moe_intermediate_size", KeyKind::Whole, true});
}

Status complete_qwen_experts(const GgufMetadata& metadata, Json& config, bool normalized)
{
    const auto says = metadata.value("expert_weights_norm", KeyKind::Flag);
    if (!says)
        return says.error();
    config.set("norm_topk_prob", says->boolean(normalized));
    if (!config.find("intermediate_size"))
        config.set("intermediate_size", config["moe_intermediate_size"]);
    return {};
}

GgufFamily qwen2moe()
{
    GgufFamily family = llama_like("qwen2moe", "qwen2_moe", false);
    add_qwen_experts(family);
    rename(family, {"ffn_gate_inp_shexp", "mlp.shared_expert_gate", Stored::OneRow});
    rename(family, {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"});
    rename(family, {"ffn_up_shexp", "mlp.shared_expert.up_proj"});
    rename(family, {"ffn_down_shexp", "mlp.shared_expert.down_proj"});
    family.keys.push_back(
        {"expert_shared_feed_forward_length", "shared_expert_intermediate_size", KeyKind::Whole, true});
    family.complete = [](const GgufMetadata& metadata, Json& config) {
        return complete_qwen_experts(metadata, config, false);
    };
    return family;
}

GgufFamily qwen3moe()
{
    GgufFamily family = qwen3();
    family.id = "qwen3moe";
    family.transformers_id = "qwen3_moe";
    add_qwen_experts(family);
    family.complete = [](const GgufMetadata& metadata, Json& config) {
        return complete_qwen_experts(metadata, config, true);
    };
    return family;
}

GgufFamily phi3()
{
    GgufFamily family = llama_like("phi3", "phi3", false);
    rename(family, {"attn_qkv", "self_attn.qkv_proj"});
    rename(family, {"ffn_up", "mlp.gate_up_proj"}); // rows of gate, then of up
    family.complete = [](const GgufMetadata& metadata, Json& config) {
        if (metadata.real("attention.sliding_window", 0.0) == 0.0)
            return Status{}; // 0: none
        const auto window = metadata.value("attention.sliding_window", KeyKind::Whole);
        if (!window)
            return Status(window.error());
        config.set("sliding_window", *window);
        return Status{};
    };
    return family;
}

/// query_pre_attn_scalar is not written: llama.cpp takes the head's width, except for the largest model of
/// each release, which is known by its blocks and takes hidden / heads. A file may say the factor itself.
Status complete_gemma(const GgufMetadata& metadata, Json& config, std::int64_t blocks_of_largest)
{
    const double head_dim = config["head_dim"].number();
    const double heads = config["num_attention_heads"].number();
    const bool largest = config["num_hidden_layers"].integer() == blocks_of_largest;
    const double scale = metadata.real("attention.scale", 0.0);
    config.set("query_pre_attn_scalar", scale > 0.0 ? 1.0 / (scale * scale)
                                        : largest   ? config["hidden_size"].number() / heads
                                                    : head_dim);
    return {};
}

GgufFamily gemma(std::string_view id, std::string_view transformers_id)
{
    GgufFamily family = llama_like(id, transformers_id, false);
    family.model_names[1].stored = Stored::OneAdded;
    rename(family, {"attn_norm", "input_layernorm", Stored::OneAdded});
    rename(family, {"post_attention_norm", "post_attention_layernorm", Stored::OneAdded});
    rename(family, {"ffn_norm", "pre_feedforward_layernorm", Stored::OneAdded});
    rename(family, {"post_ffw_norm", "post_feedforward_layernorm", Stored::OneAdded});
    family.keys.push_back({"attention.sliding_window", "sliding_window", KeyKind::Whole, true});
    return family;
}

GgufFamily gemma2()
{
    GgufFamily family = gemma("gemma2", "gemma2");
    family.keys.push_back({"attn_logit_softcapping", "attn_logit_softcapping", KeyKind::Real});
    family.keys.push_back({"final_logit_softcapping", "final_logit_softcapping", KeyKind::Real});
    family.complete = [](const GgufMetadata& metadata, Json& config) {
        return complete_gemma(metadata, config, 46);
    };
    return family;
}

/// Which blocks slide: a list of flags, or the length of a pattern whose last block does not (absent: 6).
Status add_sliding_pattern(const GgufMetadata& metadata, Json& config)
{
    constexpr std::string_view k_key = "attention.sliding_window_pattern";
    const Json& pattern = metadata.gguf().metadata()["gemma3." + std::string(k_key)];
    const auto* flags = pattern.array_if();
    if (!flags) {
        const auto length = metadata.value(k_key, KeyKind::Whole);
        if (!length)
            return length.error();
        if (!length->is_null())
            config.set("sliding_window_pattern", *length);
        return {};
    }
    Json::Array types;
    for (const Json& slides : *flags) {
        if (!slides.is_bool())
            return bad_input("true or false was expected for each block", metadata.place(k_key));
        types.emplace_back(slides.boolean() ? "sliding_attention" : "full_attention");
    }
    if (static_cast<std::int64_t>(types.size()) != config["num_hidden_layers"].integer())
        return bad_input("it has " + std::to_string(types.size()) + " entries for "
                             + std::to_string(config["num_hidden_layers"].integer()) + " blocks",
                         metadata.place(k_key));
    config.set("layer_types", std::move(types));
    return {};
}

GgufFamily gemma3()
{
    GgufFamily family = gemma("gemma3", "gemma3_text");
    rename(family, {"attn_q_norm", "self_attn.q_norm", Stored::OneAdded});
    rename(family, {"attn_k_norm", "self_attn.k_norm", Stored::OneAdded});
    family.keys.push_back({"rope.freq_base_swa", "rope_local_base_freq", KeyKind::Real});
    family.keys.push_back({"final_logit_softcapping", "final_logit_softcapping", KeyKind::Real});
    family.complete = [](const GgufMetadata& metadata, Json& config) {
        if (auto added = add_sliding_pattern(metadata, config); !added)
            return added;
        return complete_gemma(metadata, config, 62);
    };
    return family;
}

GgufFamily gpt2()
{
    GgufFamily family;
    family.id = family.transformers_id = "gpt2";
    family.blocks = "transformer.h.";
    family.model_names = {
        {"token_embd", "transformer.wte"},
        {"position_embd", "transformer.wpe"},
        {"output_norm", "transformer.ln_f"},
        {"output", "lm_head"},
    };
    family.block_names = {
        {"attn_norm", "ln_1"},          {"ffn_norm", "ln_2"},   {"attn_qkv", "attn.c_attn"},
        {"attn_output", "attn.c_proj"}, {"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"},
    };
    family.keys = {
        {"context_length", "n_positions", KeyKind::Whole, true},
        {"embedding_length", "n_embd", KeyKind::Whole, true},
        {"feed_forward_length", "n_inner", KeyKind::Whole, true},
        {"block_count", "n_layer", KeyKind::Whole, true},
        {"attention.head_count", "n_head", KeyKind::Whole, true},
        {"attention.layer_norm_epsilon", "layer_norm_epsilon", KeyKind::Real, true},
    };
    return family;
}

GgufFamily gptneox()
{
    GgufFamily family;
    family.id = "gptneox";
    family.transformers_id = "gpt_neox";
    family.blocks = "gpt_neox.layers.";
    family.model_names = {
        {"token_embd", "gpt_neox.embed_in"},
        {"output_norm", "gpt_neox.final_layer_norm"},
        {"output", "embed_out"},
    };
    family.block_names = {
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"attn_qkv", "attention.query_key_value", Stored::PartsApart},
        {"attn_output", "attention.dense"},
        {"ffn_up", "mlp.dense_h_to_4h"},
        {"ffn_down", "mlp.dense_4h_to_h"},
    };
    family.keys = common_keys();
    for (GgufKey& key : family.keys) {
        if (key.hugging_face == "rms_norm_eps")
            key = {"attention.layer_norm_epsilon", "layer_norm_eps", KeyKind::Real, true};
    }
    family.keys.push_back({"use_parallel_residual", "use_parallel_residual", KeyKind::Flag});
    return family;
}

/// Where several fit a file, the first counts.
const std::vector<GgufFamily>& all_families()
{
    static const std::vector<GgufFamily> k_all = {
        mixtral(),  mistral(), llama(),  qwen2(),  qwen3(), qwen2moe(),
        qwen3moe(), phi3(),    gemma2(), gemma3(), gpt2(),  gptneox(),
    };
    return k_all;
}

} // namespace

Result<const GgufFamily*> gguf_family_of(const CheckpointReader& gguf)
{
    const std::string id = gguf.metadata()["general.architecture"].string();
    std::string known;
    std::string_view last;
    for (const GgufFamily& family : all_families()) {
        const GgufMetadata metadata(gguf, family.id);
        if (family.id == id && (family.when.empty() || metadata.real(family.when, 0.0) > 0.0))
            return &family;
        if (family.id != last)
            known += (known.empty() ? "" : ", ") + std::string(family.id);
        last = family.id;
    }
    return bad_input("the GGUF architecture \"" + id.substr(0, 80) + "\" is not known; known: " + known,
                     gguf.path().string() + ": key general.architecture",
                     "Open a model of one of these families");
}

const GgufFamily* gguf_family_for(std::string_view transformers_id)
{
    const auto& all = all_families();
    const auto found = std::find_if(all.begin(), all.end(), [&](const GgufFamily& family) {
        return family.transformers_id == transformers_id;
    });
    return found == all.end() ? nullptr : &*found;
}

} // namespace rankscope::detail
