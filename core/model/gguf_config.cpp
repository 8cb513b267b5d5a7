// SPDX-License-Identifier: GPL-3.0-or-later
// Metadata of a GGUF file as the config.json that Hugging Face would have.
#include "core/model/detail/gguf_family.h"
#include "core/model/gguf_model.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace rankscope {
namespace detail {

double shortest(double value)
{
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
    double result = value;
    std::from_chars(text, end, result);
    return result;
}

std::string GgufMetadata::place(std::string_view key) const
{
    return gguf_.path().string() + ": key " + prefix_ + std::string(key);
}

double GgufMetadata::real(std::string_view key, double fallback) const
{
    const Json* value = find(key);
    return value ? value->number(fallback) : fallback;
}

Result<Json> GgufMetadata::value(std::string_view key, KeyKind kind) const
{
    const Json* value = find(key);
    if (!value)
        return Json();
    if (const auto* list = value->array_if(); list && kind != KeyKind::Flag) {
        if (list->empty() || std::any_of(list->begin(), list->end(), [&](const Json& one) {
                return !(one == list->front());
            }))
            return bad_input("it differs from block to block, which is not known", place(key));
        value = &list->front();
    }
    if (kind == KeyKind::Flag) {
        if (!value->is_bool())
            return bad_input("true or false was expected", place(key));
        return *value;
    }
    if (kind == KeyKind::Real) {
        if (!value->is_number() || !std::isfinite(value->number()) || !(value->number() > 0.0))
            return bad_input("a positive number was expected", place(key));
        return Json(shortest(value->number()));
    }
    if (!value->is_integer())
        return bad_input("a whole number was expected", place(key));
    if (value->integer() < 1)
        return bad_input("it is " + std::to_string(value->integer()) + ", but must be at least 1",
                         place(key));
    return *value;
}

} // namespace detail

namespace {

using namespace detail;

constexpr Index k_max_factors = Index{1} << 16; // pairs of a head

Status copy_keys(const GgufFamily& family, const GgufMetadata& metadata, Json& config)
{
    for (const GgufKey& key : family.keys) {
        auto value = metadata.value(key.gguf, key.kind);
        if (!value)
            return value.error();
        if (value->is_null() && key.required)
            return bad_input("the key is missing", metadata.place(key.gguf),
                             "The file is incomplete: convert the model again");
        if (!value->is_null())
            config.set(key.hugging_face, std::move(*value));
    }
    return {};
}

/// Absent keys mean what llama.cpp takes them for, not what transformers does.
Status add_defaults(const GgufMetadata& metadata, Json& config)
{
    const std::int64_t heads = config["num_attention_heads"].integer();
    if (heads == 0)
        return {}; // learned positions: the family's own spellings hold everything
    if (!config.find("num_key_value_heads"))
        config.set("num_key_value_heads", heads);
    const std::int64_t hidden = config["hidden_size"].integer();
    if (!config.find("head_dim")) {
        if (hidden % heads != 0)
            return bad_input("the key is missing, and the width of " + std::to_string(hidden)
                                 + " cannot be parted among " + std::to_string(heads) + " heads",
                             metadata.place("attention.key_length"));
        config.set("head_dim", hidden / heads);
    }
    if (!config.find("rope_theta"))
        config.set("rope_theta", 10000.0);
    const auto values = metadata.value("attention.value_length", KeyKind::Whole);
    if (!values)
        return values.error();
    if (!values->is_null() && !(*values == config["head_dim"]))
        return bad_input("values of another width than keys are not known",
                         metadata.place("attention.value_length"));
    return {};
}

/// How much of a head is turned, so that the product with its width gives back the very number.
Status add_rotary_share(const GgufMetadata& metadata, Json& config)
{
    const auto turned = metadata.value("rope.dimension_count", KeyKind::Whole);
    if (!turned)
        return turned.error();
    const Json& head_dim = config["head_dim"];
    if (turned->is_null() || head_dim.is_null())
        return {};
    if (turned->integer() > head_dim.integer())
        return bad_input("it is " + std::to_string(turned->integer()) + ", more than the "
                             + std::to_string(head_dim.integer()) + " features of a head",
                         metadata.place("rope.dimension_count"));
    double share = turned->number() / head_dim.number();
    if (static_cast<std::int64_t>(share * head_dim.number()) < turned->integer())
        share = std::nextafter(share, 2.0);
    config.set("partial_rotary_factor", share);
    return {};
}

Result<Json> factors_of(const CheckpointReader& gguf, const char* tensor)
{
    const TensorInfo* info = gguf.find(tensor);
    if (info->shape.size() != 1 || info->shape.front() > k_max_factors)
        return bad_input("a list of factors was expected", gguf.path().string() + ": tensor " + tensor);
    const auto matrix = gguf.read(tensor);
    if (!matrix)
        return matrix.error();
    Json::Array factors;
    for (Index i = 0; i < matrix->size(); ++i)
        factors.emplace_back(static_cast<double>(matrix->data()[i]));
    return Json(std::move(factors));
}

/// Frequency factors that the file holds as tensors: Llama 3.1's, and LongRoPE's for short and long texts.
Status add_factors(const GgufMetadata& metadata, const char* near, const char* far, Json& config)
{
    const CheckpointReader& gguf = metadata.gguf();
    for (const char* tensor : {near, far}) {
        if (!gguf.find(tensor))
            return bad_input("the tensor is missing", gguf.path().string() + ": tensor " + tensor);
    }
    auto short_factors = factors_of(gguf, near);
    if (!short_factors)
        return short_factors.error();
    auto long_factors = factors_of(gguf, far);
    if (!long_factors)
        return long_factors.error();
    Json scaling;
    scaling.set("rope_type", "longrope");
    scaling.set("short_factor", std::move(*short_factors));
    scaling.set("long_factor", std::move(*long_factors));
    scaling.set("attention_factor", shortest(metadata.real("rope.scaling.attn_factor", 1.0)));
    config.set("rope_scaling", std::move(scaling));
    return {};
}

Status add_scaling(const GgufMetadata& metadata, Json& config)
{
    const CheckpointReader& gguf = metadata.gguf();
    const auto original = metadata.value("rope.scaling.original_context_length", KeyKind::Whole);
    if (!original)
        return original.error();
    if (!original->is_null())
        config.set("original_max_position_embeddings", *original);
    if (gguf.find("rope_freqs.weight"))
        return add_factors(metadata, "rope_freqs.weight", "rope_freqs.weight", config);
    if (gguf.find("rope_factors_long.weight") || gguf.find("rope_factors_short.weight")) {
        if (original->is_null())
            return bad_input("the key is missing, but there are factors for longer texts",
                             metadata.place("rope.scaling.original_context_length"));
        return add_factors(metadata, "rope_factors_short.weight", "rope_factors_long.weight", config);
    }
    const Json& kind =
        gguf.metadata()[gguf.metadata()["general.architecture"].string() + ".rope.scaling.type"];
    const std::string name = kind.string("none");
    if (name == "none" && (kind.is_null() || kind.is_string()))
        return {};
    if (name != "linear" && name != "yarn")
        return bad_input("the kind " + (kind.is_string() ? "\"" + name.substr(0, 80) + "\"" : kind.dump())
                             + " is not known; known: none, linear, yarn",
                         metadata.place("rope.scaling.type"));
    const auto factor = metadata.value("rope.scaling.factor", KeyKind::Real);
    if (!factor)
        return factor.error();
    Json scaling;
    scaling.set("rope_type", name);
    scaling.set("factor", factor->is_null() ? Json(1.0) : *factor);
    for (const auto& [theirs, ours] : {std::pair{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                       {"rope.scaling.yarn_beta_slow", "beta_slow"}}) {
        const auto value = metadata.value(theirs, KeyKind::Real);
        if (!value)
            return value.error();
        if (!value->is_null())
            scaling.set(ours, *value);
    }
    const double extra = metadata.real("rope.scaling.attn_factor", 1.0); // beside YaRN's own
    if (name == "yarn" && extra != 1.0)
        scaling.set("attention_factor", extra * (1.0 + 0.1 * std::log(scaling["factor"].number())));
    config.set("rope_scaling", std::move(scaling));
    return {};
}

} // namespace

Result<Json> gguf_config(const CheckpointReader& gguf)
{
    const auto family = gguf_family_of(gguf);
    if (!family)
        return family.error();
    const GgufMetadata metadata(gguf, (*family)->id);
    Json config;
    config.set("model_type", (*family)->transformers_id);
    if (auto copied = copy_keys(**family, metadata, config); !copied)
        return copied.error();
    const TensorInfo* embedding = gguf.find("token_embd.weight");
    if (!embedding || embedding->shape.size() != 2)
        return bad_input("there is no tensor token_embd.weight with two dimensions", gguf.path().string());
    config.set("vocab_size", embedding->shape.front());
    config.set("tie_word_embeddings", gguf.find("output.weight") == nullptr);
    const bool attention_bias = gguf.find("blk.0.attn_q.bias") || gguf.find("blk.0.attn_qkv.bias");
    config.set("attention_bias", attention_bias);
    config.set("qkv_bias", attention_bias); // Qwen 2 MoE's spelling
    config.set("mlp_bias", gguf.find("blk.0.ffn_up.bias") != nullptr);
    using Step = Status (*)(const GgufMetadata&, Json&);
    for (const Step step :
         {Step{add_defaults}, Step{add_rotary_share}, Step{add_scaling}, (*family)->complete}) {
        if (!step)
            continue;
        if (auto done = step(metadata, config); !done)
            return done.error();
    }
    return config;
}

} // namespace rankscope
