// SPDX-License-Identifier: GPL-3.0-or-later
// config.json as the metadata of a GGUF file: the way back from gguf_config.cpp. Keys and types are those of
// llama.cpp's converter.
#include "core/model/detail/gguf_keys.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace rankscope::detail {
namespace {

constexpr std::int64_t k_gemma3_pattern = 6; ///< what llama.cpp takes where the key is absent

Error cannot_say(const Model& model, const std::string& what)
{
    return usage_error("a GGUF file cannot say " + what, model.path().string(), "Export in another format");
}

/// What the parsed configuration says under one of its spellings; null: nothing of its own.
Json parsed_value(const ModelConfig& config, std::string_view key)
{
    static const std::map<std::string_view, Index ModelConfig::*> k_whole = {
        {"max_position_embeddings", &ModelConfig::max_positions},
        {"n_positions", &ModelConfig::max_positions},
        {"hidden_size", &ModelConfig::hidden},
        {"n_embd", &ModelConfig::hidden},
        {"intermediate_size", &ModelConfig::intermediate},
        {"n_inner", &ModelConfig::intermediate},
        {"num_hidden_layers", &ModelConfig::blocks},
        {"n_layer", &ModelConfig::blocks},
        {"num_attention_heads", &ModelConfig::heads},
        {"n_head", &ModelConfig::heads},
        {"num_key_value_heads", &ModelConfig::kv_heads},
        {"head_dim", &ModelConfig::head_dim},
        {"sliding_window", &ModelConfig::sliding_window},
        {"num_local_experts", &ModelConfig::experts},
        {"num_experts", &ModelConfig::experts},
        {"num_experts_per_tok", &ModelConfig::experts_per_token},
    };
    static const std::map<std::string_view, double ModelConfig::*> k_real = {
        {"rms_norm_eps", &ModelConfig::norm_epsilon},
        {"layer_norm_eps", &ModelConfig::norm_epsilon},
        {"layer_norm_epsilon", &ModelConfig::norm_epsilon},
        {"rope_theta", &ModelConfig::rope_theta},
        {"rope_local_base_freq", &ModelConfig::local_rope_theta},
        {"attn_logit_softcapping", &ModelConfig::score_cap},
        {"final_logit_softcapping", &ModelConfig::logit_cap},
    };
    if (const auto whole = k_whole.find(key); whole != k_whole.end())
        return config.*whole->second > 0 ? Json(std::int64_t{config.*whole->second}) : Json();
    if (const auto real = k_real.find(key); real != k_real.end())
        return config.*real->second > 0.0 ? Json(config.*real->second) : Json();
    return config.raw[key];
}

class KeyWriter {
public:
    KeyWriter(const Model& model, const GgufFamily& family, GgufForm& form)
        : model_(model), config_(model.config()), family_(family), form_(form),
          prefix_(std::string(family.id) + ".")
    {}

    Status run()
    {
        add_general();
        for (const GgufKey& key : family_.keys) {
            if (auto added = add(key); !added)
                return added;
        }
        add_shape();
        for (const auto step : {&KeyWriter::add_rope, &KeyWriter::add_gemma, &KeyWriter::add_others}) {
            if (auto added = (this->*step)(); !added)
                return added;
        }
        return {};
    }

private:
    void set(const std::string& key, GgufType type, Json value)
    {
        form_.metadata[prefix_ + key] = {type, std::move(value)};
    }

    void add_general()
    {
        auto& metadata = form_.metadata;
        metadata["general.architecture"] = {GgufType::Text, std::string(family_.id)};
        metadata["general.type"] = {GgufType::Text, "model"};
        std::filesystem::path name = model_.path().filename();
        if (name.empty())
            name = model_.path().parent_path().filename();
        metadata["general.name"] = {GgufType::Text, name.string()};
        metadata["general.quantization_version"] = {GgufType::U32, 2};
        metadata["general.alignment"] = {GgufType::U32, 32};
    }

    Status add(const GgufKey& key)
    {
        Json value = parsed_value(config_, key.hugging_face);
        if (value.is_null())
            return key.required
                       ? Status(cannot_say(model_, "a model without " + std::string(key.hugging_face)))
                       : Status();
        const GgufType type = key.kind == KeyKind::Whole  ? GgufType::U32
                              : key.kind == KeyKind::Real ? GgufType::F32
                                                          : GgufType::Flag;
        set(std::string(key.gguf), type, std::move(value));
        return {};
    }

    bool rotary() const { return model_.architecture().config_keys().rotary; }

    void add_shape()
    {
        set("vocab_size", GgufType::U32, std::int64_t{config_.vocabulary});
        if (!rotary())
            return;
        set("attention.value_length", GgufType::U32, std::int64_t{config_.head_dim});
        const auto turned =
            static_cast<std::int64_t>(static_cast<double>(config_.head_dim) * config_.rotary_share);
        set("rope.dimension_count", GgufType::U32, turned);
    }

    Status add_rope()
    {
        const Json& scaling = config_.rope_scaling;
        const std::string kind = scaling["rope_type"].string(scaling["type"].string("default"));
        if (!rotary() || scaling.is_null() || kind == "default")
            return {};
        if (kind == "linear" || kind == "yarn")
            return add_stretched(kind);
        if (kind == "llama3")
            return add_frequencies();
        if (kind == "longrope" || kind == "su")
            return add_long_and_short();
        return cannot_say(model_, "rotary frequencies of the kind " + kind);
    }

    Status add_stretched(const std::string& kind)
    {
        const Json& scaling = config_.rope_scaling;
        for (const char* key : {"attention_factor", "mscale", "mscale_all_dim"}) {
            if (kind == "yarn" && !scaling[key].is_null())
                return cannot_say(model_, std::string("YaRN with ") + key);
        }
        set("rope.scaling.type", GgufType::Text, kind);
        set("rope.scaling.factor", GgufType::F32, scaling["factor"].number(1.0));
        if (const std::int64_t original = original_positions(); original > 0)
            set("rope.scaling.original_context_length", GgufType::U32, original);
        for (const auto& [ours, theirs] : {std::pair{"beta_fast", "rope.scaling.yarn_beta_fast"},
                                           {"beta_slow", "rope.scaling.yarn_beta_slow"}}) {
            if (kind == "yarn" && scaling[ours].is_number())
                set(theirs, GgufType::F32, scaling[ours].number());
        }
        return {};
    }

    std::int64_t original_positions() const
    {
        constexpr char k_key[] = "original_max_position_embeddings";
        return config_.raw[k_key].integer(config_.rope_scaling[k_key].integer());
    }

    /// Llama 3.1's rule, as factors that divide the plain frequencies.
    Status add_frequencies()
    {
        const auto rotation = model_.architecture().rotation(config_);
        if (!rotation)
            return rotation.error();
        const std::vector<double>& scaled = rotation->frequencies;
        const double width = 2.0 * static_cast<double>(scaled.size());
        GgufFactors factors{"rope_freqs.weight", {}};
        for (std::size_t i = 0; i < scaled.size(); ++i) {
            const double plain = std::pow(config_.rope_theta, -2.0 * static_cast<double>(i) / width);
            factors.values.push_back(static_cast<float>(plain / scaled[i]));
        }
        form_.factors.push_back(std::move(factors));
        return {};
    }

    Status add_long_and_short()
    {
        const Json& scaling = config_.rope_scaling;
        const std::int64_t original = original_positions();
        if (original <= 0)
            return cannot_say(model_, "LongRoPE without original_max_position_embeddings");
        for (const auto& [ours, theirs] : {std::pair{"long_factor", "rope_factors_long.weight"},
                                           {"short_factor", "rope_factors_short.weight"}}) {
            const Json::Array* list = scaling[ours].array_if();
            if (!list)
                return cannot_say(model_, std::string("LongRoPE without ") + ours);
            GgufFactors factors{theirs, {}};
            for (const Json& factor : *list)
                factors.values.push_back(static_cast<float>(factor.number(1.0)));
            form_.factors.push_back(std::move(factors));
        }
        const double stretch = static_cast<double>(config_.max_positions) / static_cast<double>(original);
        const double usual =
            stretch <= 1.0 ? 1.0
                           : std::sqrt(1.0 + std::log(stretch) / std::log(static_cast<double>(original)));
        set("rope.scaling.original_context_length", GgufType::U32, original);
        set("rope.scaling.attn_factor", GgufType::F32, scaling["attention_factor"].number(usual));
        return {};
    }

    /// llama.cpp divides attention scores by the root of a head's width (of hidden / heads in the largest
    /// Gemma of a release), and takes every sixth block of Gemma 3 as one that sees all.
    Status add_gemma()
    {
        if (!family_.id.starts_with("gemma"))
            return {};
        const bool largest = config_.blocks == (family_.id == "gemma2" ? 46 : 62);
        const double taken = static_cast<double>(largest ? config_.hidden / config_.heads : config_.head_dim);
        const double scale = config_.query_scale > 0.0 ? config_.query_scale : taken;
        if (scale != taken)
            return cannot_say(model_, "attention scores that are divided by the root of "
                                          + std::to_string(static_cast<long>(scale))
                                          + " (query_pre_attn_scalar) " + "instead of that of "
                                          + std::to_string(static_cast<long>(taken)));
        if (family_.id != "gemma3")
            return {};
        Json::Array flags;
        bool usual = true;
        for (Index block = 0; block < config_.blocks; ++block) {
            const bool slides =
                model_.architecture().block_traits(config_, static_cast<int>(block)).window > 0;
            usual = usual && slides == ((block + 1) % k_gemma3_pattern != 0);
            flags.emplace_back(slides);
        }
        if (!usual)
            set("attention.sliding_window_pattern", GgufType::Flag, std::move(flags));
        return {};
    }

    Status add_others()
    {
        const bool slides = family_.id == "phi3" || family_.id.starts_with("gemma");
        if (config_.sliding_window > 0 && !slides)
            form_.warnings.push_back("llama.cpp lets every token of " + std::string(family_.id)
                                     + " models see the whole text: beyond this model's window of "
                                     + std::to_string(config_.sliding_window)
                                     + " tokens its results are others");
        if (family_.id == "gptneox") {
            const bool parallel = model_.architecture().block_traits(config_, 0).parallel_residual;
            set("use_parallel_residual", GgufType::Flag, parallel);
        }
        if (family_.id == "phi3") // 0: none
            set("attention.sliding_window", GgufType::U32, std::int64_t{config_.sliding_window});
        if (config_.raw["norm_topk_prob"].is_bool())
            set("expert_weights_norm", GgufType::Flag, config_.raw["norm_topk_prob"].boolean());
        return {};
    }

    const Model& model_;
    const ModelConfig& config_;
    const GgufFamily& family_;
    GgufForm& form_;
    std::string prefix_;
};

} // namespace

Status add_gguf_keys(const Model& model, const GgufFamily& family, GgufForm& form)
{
    return KeyWriter(model, family, form).run();
}

} // namespace rankscope::detail
