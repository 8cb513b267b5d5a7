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
constexpr Index k_max_experts = 1024;
constexpr Index k_max_all_experts = 100'000;
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

/// transformers 4 has rope_theta and rope_scaling, transformers 5 one object rope_parameters with both, or
/// one for each type of layer.
void read_rope(KeyReader& keys, const Json& config, const ConfigKeys& spelling, ModelConfig& result)
{
    const Json* parameters = &config["rope_parameters"];
    if (!parameters->is_null() && !parameters->is_object())
        return keys.fail("rope_parameters", "an object was expected");
    result.local_rope_theta = spelling.default_local_rope_theta;
    const Json& local = (*parameters)["sliding_attention"];
    const bool by_type = (*parameters)["full_attention"].is_object() || local.is_object();
    if (by_type && !spelling.layer_types)
        return keys.fail("rope_parameters", "one set for each layer type is not known for this architecture");
    if (local.is_object()) {
        keys.positive(local["rope_theta"], "rope_theta", result.local_rope_theta, 10000.0);
        result.local_rope_scaling = local;
    } else if (spelling.default_local_rope_theta > 0.0) {
        keys.positive(config["rope_local_base_freq"], "rope_local_base_freq", result.local_rope_theta,
                      spelling.default_local_rope_theta);
    }
    if (by_type)
        parameters = &(*parameters)["full_attention"];
    const Json& old_theta =
        config["rope_theta"].is_null() ? config[spelling.rope_theta] : config["rope_theta"];
    const Json& theta = parameters->find("rope_theta") ? (*parameters)["rope_theta"] : old_theta;
    keys.positive(theta, "rope_theta", result.rope_theta, spelling.default_rope_theta);
    const Json& new_share = (*parameters)["partial_rotary_factor"];
    const Json& old_share = config["partial_rotary_factor"].is_null() ? config[spelling.rotary_share]
                                                                      : config["partial_rotary_factor"];
    keys.positive(new_share.is_null() ? old_share : new_share, spelling.rotary_share, result.rotary_share,
                  spelling.default_rotary_share);
    if (keys.ok() && result.rotary_share > 1.0)
        return keys.fail(spelling.rotary_share, "more than a whole head cannot be turned");
    const Json& scaling = parameters->is_object() ? *parameters : config["rope_scaling"];
    if (!scaling.is_null() && !scaling.is_object())
        return keys.fail("rope_scaling", "an object or null was expected");
    result.rope_scaling = scaling;
    if (!config["original_max_position_embeddings"].is_null())
        keys.size("original_max_position_embeddings", result.original_positions, k_max_positions);
}

void read_layer_types(KeyReader& keys, const Json& types, ModelConfig& result)
{
    const Json::Array* names = types.array_if();
    if (!names || names->size() != static_cast<std::size_t>(result.blocks))
        return keys.fail("layer_types", "a list with one name for each of the "
                                            + std::to_string(result.blocks) + " layers was expected");
    for (const Json& name : *names) {
        const std::string text = name.string();
        if (text != "full_attention" && text != "sliding_attention")
            return keys.fail("layer_types",
                             "the type \"" + text.substr(0, 80)
                                 + "\" is not known; known: full_attention, sliding_attention");
        result.slides.push_back(text == "sliding_attention");
    }
}

void read_window(KeyReader& keys, const Json& config, const ConfigKeys& spelling, ModelConfig& result)
{
    result.sliding_window = config.find("sliding_window") ? 0 : spelling.default_window;
    bool in_use = true;
    if (!config["use_sliding_window"].is_null() || spelling.window_is_switched)
        keys.flag("use_sliding_window", in_use, false);
    if (!in_use)
        result.sliding_window = 0;
    else if (!config["sliding_window"].is_null())
        keys.size("sliding_window", result.sliding_window, k_max_positions);
    if (spelling.layer_types && keys.ok() && !config["layer_types"].is_null())
        read_layer_types(keys, config["layer_types"], result);
}

void read_attention(KeyReader& keys, const ConfigKeys& spelling, ModelConfig& result)
{
    keys.size(spelling.heads, result.heads, k_max_heads);
    result.kv_heads = result.heads;
    if (spelling.kv_heads && keys.ok())
        keys.size(spelling.kv_heads, result.kv_heads, k_max_heads,
                  spelling.default_kv_heads.value_or(result.heads));
    if (!keys.ok())
        return;
    if (result.heads % result.kv_heads != 0)
        return keys.fail(spelling.kv_heads, "it is " + std::to_string(result.kv_heads)
                                                + ", which does not divide the "
                                                + std::to_string(result.heads) + " attention heads");
    const bool divides = result.hidden % result.heads == 0;
    std::optional<Index> absent = spelling.default_head_dim;
    if (!absent && divides)
        absent = result.hidden / result.heads;
    keys.size("head_dim", result.head_dim, k_max_width, absent);
    if (keys.ok() && spelling.rotary && result.head_dim % 2 != 0)
        keys.fail("head_dim",
                  "it is " + std::to_string(result.head_dim) + ", but rotary positions need an even number");
    if (keys.ok() && result.heads * result.head_dim > k_max_width)
        keys.fail("head_dim", "all heads together are " + std::to_string(result.heads * result.head_dim)
                                  + " wide, more than the " + std::to_string(k_max_width)
                                  + " that are accepted");
}

void read_sizes(KeyReader& keys, const ConfigKeys& spelling, ModelConfig& result)
{
    keys.size("vocab_size", result.vocabulary, k_max_vocabulary);
    keys.size(spelling.hidden, result.hidden, k_max_width);
    std::optional<Index> intermediate;
    if (spelling.intermediate_factor > 0)
        intermediate = spelling.intermediate_factor * result.hidden;
    keys.size(spelling.intermediate, result.intermediate, k_max_width, intermediate);
    keys.size(spelling.blocks, result.blocks, k_max_blocks);
    keys.size(spelling.positions, result.max_positions, k_max_positions, spelling.default_positions);
}

/// Blocks that have one MLP though the family has experts: Qwen's two ways to name them.
void read_dense_blocks(KeyReader& keys, const Json& config, const ConfigKeys& spelling, ModelConfig& result)
{
    Index step = 1;
    keys.size(spelling.sparse_step, step, k_max_blocks, 1);
    const Json& list = config[spelling.dense_blocks];
    if (!list.is_null() && !list.is_array())
        return keys.fail(spelling.dense_blocks, "a list of block numbers was expected");
    if (!keys.ok() || (step == 1 && (list.is_null() || list.array_if()->empty())))
        return;
    for (Index block = 0; block < result.blocks; ++block)
        result.dense.push_back((block + 1) % step != 0);
    if (list.is_null())
        return;
    for (const Json& block : *list.array_if()) {
        if (!block.is_integer() || block.integer() < 0 || block.integer() >= result.blocks)
            return keys.fail(spelling.dense_blocks, "there is no block " + block.dump().substr(0, 40));
        result.dense[static_cast<std::size_t>(block.integer())] = true;
    }
}

void read_experts(KeyReader& keys, const Json& config, const ConfigKeys& spelling, ModelConfig& result)
{
    if (!spelling.experts || !keys.ok())
        return;
    constexpr char k_other_spelling[] = "num_local_experts"; // transformers 5 writes it for all families
    const bool usual = config.find(spelling.experts) || !config.find(k_other_spelling);
    const char* experts = usual ? spelling.experts : k_other_spelling;
    keys.size(experts, result.experts, k_max_experts);
    if (keys.ok())
        keys.size(spelling.experts_per_token, result.experts_per_token, result.experts);
    if (keys.ok() && result.experts * result.blocks > k_max_all_experts)
        keys.fail(experts, "all blocks together have " + std::to_string(result.experts * result.blocks)
                               + " experts, more than the " + std::to_string(k_max_all_experts)
                               + " that are accepted");
    result.expert_intermediate = result.intermediate;
    if (spelling.expert_width)
        keys.size(spelling.expert_width, result.expert_intermediate, k_max_width);
    if (spelling.shared_width)
        keys.size(spelling.shared_width, result.shared_intermediate, k_max_width);
    if (spelling.routes_normalized)
        keys.flag(spelling.routes_normalized, result.routes_normalized, false);
    if (spelling.sparse_step)
        read_dense_blocks(keys, config, spelling, result);
}

/// A soft cap: null means none, an absent key the family's own.
void read_cap(KeyReader& keys, const Json& config, const char* key, double fallback, double& field)
{
    if (key)
        keys.positive(config[key], key, field, config.find(key) ? 0.0 : fallback);
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
    const auto architecture = detail::find_architecture(result.model_type);
    if (!architecture)
        return detail::unknown_architecture(result.model_type);

    const ConfigKeys& spelling = architecture->config_keys();
    read_sizes(keys, spelling, result);
    read_experts(keys, config, spelling, result);
    if (keys.ok())
        read_attention(keys, spelling, result);
    result.norm_epsilon = spelling.default_epsilon;
    if (spelling.epsilon)
        keys.positive(config[spelling.epsilon], spelling.epsilon, result.norm_epsilon,
                      spelling.default_epsilon);
    keys.text(spelling.activation, result.activation, spelling.default_activation);
    keys.flag("tie_word_embeddings", result.tied_embeddings, spelling.default_tied);
    if (spelling.attention_bias)
        keys.flag(spelling.attention_bias, result.attention_bias, spelling.default_bias);
    if (spelling.mlp_bias)
        keys.flag(spelling.mlp_bias, result.mlp_bias, spelling.default_bias);
    if (spelling.query_scale)
        keys.positive(config[spelling.query_scale], spelling.query_scale, result.query_scale,
                      spelling.default_query_scale);
    read_cap(keys, config, spelling.score_cap, spelling.default_score_cap, result.score_cap);
    read_cap(keys, config, spelling.logit_cap, spelling.default_logit_cap, result.logit_cap);
    keys.text(config["dtype"].is_null() ? "torch_dtype" : "dtype", result.dtype, "");
    if (spelling.rotary)
        read_rope(keys, config, spelling, result);
    read_window(keys, config, spelling, result);
    if (!keys.ok())
        return keys.problem();
    return result;
}

Result<Json> ModelConfig::read_json(const std::filesystem::path& config_file)
{
    std::error_code problem;
    if (!std::filesystem::exists(config_file, problem)
        && std::filesystem::exists(config_file.parent_path(), problem))
        return bad_input("the file is missing, and without it the tensors cannot be understood",
                         config_file.string(), "Download config.json of the model into the same folder");
    return Json::read(config_file, JsonLimits{std::size_t{16} << 20, 64, 1'000'000});
}

Result<ModelConfig> ModelConfig::read(const std::filesystem::path& config_file)
{
    const auto json = read_json(config_file);
    if (!json)
        return json.error();
    auto config = parse(*json);
    if (!config)
        return config.error().in(config_file.string());
    return config;
}

} // namespace rankscope
