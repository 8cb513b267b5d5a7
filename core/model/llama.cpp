// SPDX-License-Identifier: GPL-3.0-or-later
// Llama 1 to 3 and everything that transformers stores as model_type "llama": RMSNorm before attention and
// MLP, grouped query attention with rotary positions that turn (i, i + d/2), a SiLU-gated MLP, optional
// biases.
#include "core/model/detail/architectures.h"

#include <cmath>
#include <numbers>

namespace rankscope::detail {
namespace {

Result<double> scaling_number(const Json& scaling, const char* key)
{
    const Json& value = scaling[key];
    if (!value.is_number() || !(value.number() > 0.0) || !std::isfinite(value.number()))
        return bad_input("a positive number was expected", "key rope_scaling." + std::string(key));
    return value.number();
}

Status scale_linear(const Json& scaling, std::vector<double>& frequencies)
{
    const auto factor = scaling_number(scaling, "factor");
    if (!factor)
        return factor.error();
    for (double& frequency : frequencies)
        frequency /= *factor;
    return {};
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones stay, those between are blended.
Status scale_llama3(const Json& scaling, std::vector<double>& frequencies)
{
    const auto factor = scaling_number(scaling, "factor");
    const auto low = scaling_number(scaling, "low_freq_factor");
    const auto high = scaling_number(scaling, "high_freq_factor");
    const auto original = scaling_number(scaling, "original_max_position_embeddings");
    for (const auto* value : {&factor, &low, &high, &original}) {
        if (!*value)
            return value->error();
    }
    if (*high <= *low)
        return bad_input("it must be larger than low_freq_factor", "key rope_scaling.high_freq_factor");
    for (double& frequency : frequencies) {
        const double turns = *original * frequency / (2.0 * std::numbers::pi); // within the original context
        const double kept = turns < *low ? 0.0 : turns > *high ? 1.0 : (turns - *low) / (*high - *low);
        frequency = (1.0 - kept) * frequency / *factor + kept * frequency;
    }
    return {};
}

class Llama : public Architecture {
public:
    std::string_view id() const override { return "llama"; }
    std::string_view title() const override { return "Llama"; }

    std::vector<LinearLayer> linears(const ModelConfig& config) const override
    {
        const Index queries = config.heads * config.head_dim;
        const Index keys = config.kv_heads * config.head_dim;
        const Index hidden = config.hidden;
        std::vector<LinearLayer> all;
        for (int block = 0; block < static_cast<int>(config.blocks); ++block) {
            const std::string attention = prefix(block) + "self_attn.";
            const std::string mlp = prefix(block) + "mlp.";
            const auto add = [&](const std::string& name, LinearRole role, Index out, Index in,
                                 const std::string& group) {
                all.push_back({name, block, role, out, in, group});
            };
            const std::string query = attention + "q_proj";
            const std::string gate = mlp + "gate_proj";
            add(query, LinearRole::Query, queries, hidden, query);
            add(attention + "k_proj", LinearRole::Key, keys, hidden, query);
            add(attention + "v_proj", LinearRole::Value, keys, hidden, query);
            add(attention + "o_proj", LinearRole::Output, hidden, queries, attention + "o_proj");
            add(gate, LinearRole::Gate, config.intermediate, hidden, gate);
            add(mlp + "up_proj", LinearRole::Up, config.intermediate, hidden, gate);
            add(mlp + "down_proj", LinearRole::Down, hidden, config.intermediate, mlp + "down_proj");
        }
        return all;
    }

    BlockNames block_names(int block) const override
    {
        return {prefix(block) + "input_layernorm.weight", prefix(block) + "post_attention_layernorm.weight"};
    }
    std::string embedding() const override { return "model.embed_tokens.weight"; }
    std::string final_norm() const override { return "model.norm.weight"; }
    std::string head() const override { return "lm_head.weight"; }

    bool has_bias(const ModelConfig& config, LinearRole role) const override
    {
        return role < LinearRole::Gate ? config.attention_bias : config.mlp_bias;
    }

    Status accepts(const ModelConfig& config) const override
    {
        const Json& raw = config.raw;
        if (config.activation != "silu" && config.activation != "swish")
            return bad_input("the activation \"" + config.activation
                                 + "\" is not known for Llama; known: silu",
                             "key hidden_act");
        if (raw["quantization_config"].is_object())
            return bad_input("the weights are quantized already", "key quantization_config",
                             "Open the original model in floating point");
        if (raw["partial_rotary_factor"].number(1.0) != 1.0
            || config.rope_scaling["partial_rotary_factor"].number(1.0) != 1.0)
            return bad_input("partly rotated heads are not known for Llama", "key partial_rotary_factor");
        if (config.sliding_window != 0)
            return bad_input("a sliding window is not known for Llama", "key sliding_window");
        const auto frequencies = rope_frequencies(config);
        return frequencies ? Status{} : Status(frequencies.error());
    }

    Result<std::vector<double>> rope_frequencies(const ModelConfig& config) const override
    {
        std::vector<double> frequencies;
        for (Index i = 0; i < config.head_dim / 2; ++i) {
            const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
            frequencies.push_back(std::pow(config.rope_theta, -exponent));
        }
        const Json& scaling = config.rope_scaling;
        const Json& kind = scaling.find("rope_type") ? scaling["rope_type"] : scaling["type"];
        const std::string name = kind.string("default");
        Status scaled;
        if (name == "linear")
            scaled = scale_linear(scaling, frequencies);
        else if (name == "llama3")
            scaled = scale_llama3(scaling, frequencies);
        else if (name != "default" || !(kind.is_null() || kind.is_string()))
            return bad_input("the kind \"" + name + "\" is not known; known: default, linear, llama3",
                             "key rope_scaling");
        if (!scaled)
            return scaled.error();
        return frequencies;
    }

private:
    static std::string prefix(int block) { return "model.layers." + std::to_string(block) + "."; }
};

} // namespace

std::shared_ptr<const Architecture> make_llama() { return std::make_shared<Llama>(); }

} // namespace rankscope::detail
