// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/model.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

/// A weight source may be a run's folder: what it hands out must fit the layer before a product relies on it.
Status check_shapes(const LinearLayer& layer, const LinearWeight& weight)
{
    const bool dense_fits = weight.weight.rows() == layer.out && weight.weight.cols() == layer.in;
    const bool low_rank = !weight.left.empty() || !weight.right.empty();
    const bool factors_fit = !low_rank
                             || (weight.left.rows() == layer.out && weight.right.cols() == layer.in
                                 && weight.left.cols() == weight.right.rows());
    const bool bias_fits =
        weight.bias.empty() || (weight.bias.rows() == 1 && weight.bias.cols() == layer.out);
    if (dense_fits && factors_fit && bias_fits)
        return {};
    return bad_input("the weight, its factors or its bias do not have the shape of the layer, "
                         + to_string(Shape{layer.out, layer.in}),
                     "layer " + layer.name);
}

/// y = x·Wᵀ + (x·Rᵀ)·Lᵀ + b: the factors are never multiplied out.
Buffer apply(const LinearWeight& linear, const Buffer& x, Backend& backend)
{
    Buffer y = backend.multiply(x, Transpose::No, linear.weight, Transpose::Yes);
    if (!linear.left.empty()) {
        const Buffer inner = backend.multiply(x, Transpose::No, linear.right, Transpose::Yes);
        backend.gemm(1.0, inner, Transpose::No, linear.left, Transpose::Yes, 1.0, y);
    }
    if (!linear.bias.empty())
        backend.add_bias(y, linear.bias);
    return y;
}

Result<Buffer> load_norm(const Model& model, const std::string& name, Backend& backend)
{
    auto gain = model.checkpoint().read(name);
    if (!gain)
        return gain.error();
    return backend.upload(*gain);
}

} // namespace

Result<TransformerBlock> TransformerBlock::load(const Model& model, const WeightSource& weights, int block,
                                                Backend& backend)
{
    TransformerBlock result;
    result.model_ = &model;
    result.block_ = block;
    const BlockNames names = model.architecture().block_names(block);
    auto attention_norm = load_norm(model, names.attention_norm, backend);
    if (!attention_norm)
        return attention_norm.error();
    auto mlp_norm = load_norm(model, names.mlp_norm, backend);
    if (!mlp_norm)
        return mlp_norm.error();
    result.attention_norm_ = std::move(*attention_norm);
    result.mlp_norm_ = std::move(*mlp_norm);
    for (const LinearLayer& layer : model.linears()) {
        if (layer.block != block)
            continue;
        auto weight = weights.linear(layer, backend);
        if (!weight)
            return weight.error();
        if (auto fits = check_shapes(layer, *weight); !fits)
            return fits.error();
        result.linears_.emplace_back(layer, std::move(*weight));
    }
    std::sort(result.linears_.begin(), result.linears_.end(),
              [](const auto& a, const auto& b) { return a.first.role < b.first.role; });
    constexpr std::size_t k_roles = static_cast<std::size_t>(LinearRole::Down) + 1;
    if (result.linears_.size() != k_roles)
        return internal_error("block " + std::to_string(block) + " has "
                              + std::to_string(result.linears_.size()) + " linears");
    auto frequencies = model.architecture().rope_frequencies(model.config());
    if (!frequencies)
        return frequencies.error();
    result.rope_frequencies_ = std::move(*frequencies);
    return result;
}

void TransformerBlock::forward(Buffer& hidden, Index sequence_length, Backend& backend,
                               const InputObserver& observer) const
{
    const ModelConfig& config = model_->config();
    const auto linear = [this](LinearRole role) -> const auto&
    {
        return linears_[static_cast<std::size_t>(role)];
    };
    const auto observe = [&](LinearRole role, const Buffer& x) {
        if (observer)
            observer(linear(role).first.input_group, x);
    };
    const auto project = [&](LinearRole role, const Buffer& x) {
        return apply(linear(role).second, x, backend);
    };

    const Buffer attention_input = backend.rms_norm(hidden, attention_norm_, config.norm_epsilon);
    observe(LinearRole::Query, attention_input);
    Buffer q = project(LinearRole::Query, attention_input);
    Buffer k = project(LinearRole::Key, attention_input);
    const Buffer v = project(LinearRole::Value, attention_input);
    backend.rope(q, {config.heads, config.head_dim, sequence_length, rope_frequencies_, 1.0});
    backend.rope(k, {config.kv_heads, config.head_dim, sequence_length, rope_frequencies_, 1.0});
    const AttentionShape shape{config.heads,
                               config.kv_heads,
                               config.head_dim,
                               sequence_length,
                               1.0 / std::sqrt(static_cast<double>(config.head_dim)),
                               config.sliding_window};
    const Buffer mixed = backend.attention(q, k, v, shape);
    observe(LinearRole::Output, mixed);
    backend.add_scaled(1.0, project(LinearRole::Output, mixed), 1.0, hidden);

    const Buffer mlp_input = backend.rms_norm(hidden, mlp_norm_, config.norm_epsilon);
    observe(LinearRole::Gate, mlp_input);
    Buffer gate = project(LinearRole::Gate, mlp_input);
    backend.silu_multiply(gate, project(LinearRole::Up, mlp_input));
    observe(LinearRole::Down, gate);
    backend.add_scaled(1.0, project(LinearRole::Down, gate), 1.0, hidden);
}

} // namespace rankscope
