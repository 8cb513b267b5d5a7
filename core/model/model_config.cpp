// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/model_config.h"

#include "core/model/detail/architectures.h"

#include <cmath>
#include <limits>

namespace rankscope {
namespace {

// No model comes near these; beyond them a product of sides could overflow or an allocation exhaust memory.
constexpr Index k_max_vocabulary = Index{1} << 26;
constexpr Index k_max_width = Index{1} << 22;
constexpr Index k_max_blocks = 10'000;
constexpr Index k_max_heads = Index{1} << 16;
constexpr Index k_max_positions = std::numeric_limits<std::int32_t>::max();

/// Reads keys into fields and keeps the first problem, so that the list of keys stays readable.
class KeyReader {
public:
    explicit KeyReader(const Json& config) : config_(config) {}

    /// A whole number in [1, limit]; without `fallback` the key must be there.
    void size(const char* key, Index& field, Index limit, std::optional<Index> fallback = {})
    {
        const Json& value = config_[key];
        if (value.is_null() && fallback) {
            field = *fallback;
            return;
        }
        if (value.is_null())
            return fail(key, "the key is missing");
        if (!value.is_integer())
            return fail(key, "a whole number was expected, not " + shortened(value));
        if (value.integer() < 1 || value.integer() > limit)
            return fail(key, "it is " + std::to_string(value.integer()) + ", but must be between 1 and "
                                 + std::to_string(limit));
        field = value.integer();
    }
    void positive(const Json& value, const char* key, double& field, double fallback)
    {
        field = fallback;
        if (value.is_null())
            return;
        if (!value.is_number() || !(value.number() > 0.0) || !std::isfinite(value.number()))
            return fail(key, "a positive number was expected, not " + shortened(value));
        field = value.number();
    }
    void flag(const char* key, bool& field, bool fallback)
    {
        const Json& value = config_[key];
        if (!value.is_null() && !value.is_bool())
            return fail(key, "true or false was expected, not " + shortened(value));
        field = value.boolean(fallback);
    }
    void text(const char* key, std::string& field, std::string_view fallback)
    {
        const Json& value = config_[key];
        if (!value.is_null() && !value.is_string())
            return fail(key, "a text was expected, not " + shortened(value));
        field = value.string(fallback);
    }
    void fail(std::string_view key, std::string message)
    {
        if (ok_)
            problem_ = bad_input(std::move(message), "key " + std::string(key));
        ok_ = false;
    }
    bool ok() const { return ok_; }
    const Error& problem() const { return problem_; }

private:
    static std::string shortened(const Json& value)
    {
        const std::string text = value.dump();
        return text.size() > 60 ? text.substr(0, 60) + "…" : text;
    }

    const Json& config_;
    bool ok_ = true;
    Error problem_;
};

/// transformers 4 has rope_theta and rope_scaling, transformers 5 one object rope_parameters with both.
void read_rope(KeyReader& keys, const Json& config, ModelConfig& result)
{
    const Json& parameters = config["rope_parameters"];
    if (!parameters.is_null() && !parameters.is_object())
        return keys.fail("rope_parameters", "an object was expected");
    if (parameters["full_attention"].is_object() || parameters["sliding_attention"].is_object())
        return keys.fail("rope_parameters", "one set for each layer type is not known for this architecture");
    const Json& theta = parameters.find("rope_theta") ? parameters["rope_theta"] : config["rope_theta"];
    keys.positive(theta, "rope_theta", result.rope_theta, 10000.0);
    const Json& scaling = parameters.is_object() ? parameters : config["rope_scaling"];
    if (!scaling.is_null() && !scaling.is_object())
        return keys.fail("rope_scaling", "an object or null was expected");
    result.rope_scaling = scaling;
}

void read_window(KeyReader& keys, const Json& config, ModelConfig& result)
{
    result.sliding_window = 0;
    const Json& in_use = config["use_sliding_window"];
    if (!config["sliding_window"].is_null() && (in_use.is_null() || in_use.boolean(true)))
        keys.size("sliding_window", result.sliding_window, k_max_positions);
}

void read_attention(KeyReader& keys, ModelConfig& result)
{
    keys.size("num_attention_heads", result.heads, k_max_heads);
    keys.size("num_key_value_heads", result.kv_heads, k_max_heads, result.heads);
    if (!keys.ok())
        return;
    if (result.heads % result.kv_heads != 0)
        return keys.fail("num_key_value_heads", "it is " + std::to_string(result.kv_heads)
                                                    + ", which does not divide the "
                                                    + std::to_string(result.heads) + " attention heads");
    const bool divides = result.hidden % result.heads == 0;
    keys.size("head_dim", result.head_dim, k_max_width,
              divides ? std::optional<Index>(result.hidden / result.heads) : std::nullopt);
    if (keys.ok() && result.head_dim % 2 != 0)
        keys.fail("head_dim",
                  "it is " + std::to_string(result.head_dim) + ", but rotary positions need an even number");
    if (keys.ok() && result.heads * result.head_dim > k_max_width)
        keys.fail("head_dim", "all heads together are " + std::to_string(result.heads * result.head_dim)
                                  + " wide, more than the " + std::to_string(k_max_width)
                                  + " that are accepted");
}

} // namespace

Result<ModelConfig> ModelConfig::parse(const Json& config)
{
    if (!config.is_object())
        return bad_input("an object was expected");
    ModelConfig result;
    result.raw = config;
    KeyReader keys(config);
    if (config["model_type"].is_null())
        keys.fail("model_type", "the key is missing");
    keys.text("model_type", result.model_type, "");
    if (!keys.ok())
        return keys.problem();
    // Before the sizes: other families spell their keys differently, and "hidden_size is missing" would
    // mislead.
    if (!detail::find_architecture(result.model_type))
        return detail::unknown_architecture(result.model_type);

    keys.size("vocab_size", result.vocabulary, k_max_vocabulary);
    keys.size("hidden_size", result.hidden, k_max_width);
    keys.size("intermediate_size", result.intermediate, k_max_width);
    keys.size("num_hidden_layers", result.blocks, k_max_blocks);
    keys.size("max_position_embeddings", result.max_positions, k_max_positions, 2048);
    if (keys.ok())
        read_attention(keys, result);
    keys.positive(config["rms_norm_eps"], "rms_norm_eps", result.norm_epsilon, 1e-6);
    keys.text("hidden_act", result.activation, "silu");
    keys.flag("tie_word_embeddings", result.tied_embeddings, false);
    keys.flag("attention_bias", result.attention_bias, false);
    keys.flag("mlp_bias", result.mlp_bias, false);
    keys.text(config["dtype"].is_null() ? "torch_dtype" : "dtype", result.dtype, "");
    read_rope(keys, config, result);
    read_window(keys, config, result);
    if (!keys.ok())
        return keys.problem();
    return result;
}

Result<ModelConfig> ModelConfig::read(const std::filesystem::path& config_file)
{
    std::error_code problem;
    if (!std::filesystem::exists(config_file, problem)
        && std::filesystem::exists(config_file.parent_path(), problem))
        return bad_input("the file is missing, and without it the tensors cannot be understood",
                         config_file.string(), "Download config.json of the model into the same folder");
    const auto json = Json::read(config_file, JsonLimits{std::size_t{16} << 20, 64, 1'000'000});
    if (!json)
        return json.error();
    auto config = parse(*json);
    if (!config)
        return config.error().in(config_file.string());
    return config;
}

} // namespace rankscope
