// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/differentiable_block.h"

#include "core/model/detail/fused_parts.h"
#include "core/model/model.h"

#include <utility>

namespace rankscope {
namespace {

using Role = LinearRole;

Buffer rounded(const std::function<Buffer(Role, const Buffer&)>& quantizer, Role role, const Buffer& x)
{
    return quantizer ? quantizer(role, x) : x;
}

Buffer weight_gradient(const Buffer& dy, const Buffer& x, Backend& backend)
{
    return backend.multiply(dy, Transpose::Yes, x, Transpose::No);
}

/// y = x·Wᵀ: W's gradient goes into `gradient`, dy·W is added to dx, which may be empty so far.
void linear_backward(Role role, const Buffer& dy, const Buffer& x, const BlockWeights& weights,
                     BlockGradient& gradient, Buffer& dx, Backend& backend)
{
    const Buffer& weight = weights.at(role);
    gradient.weights[role] = weight_gradient(dy, x, backend);
    if (dx.empty())
        dx = backend.multiply(dy, weight);
    else
        backend.gemm(1.0, dy, Transpose::No, weight, Transpose::No, 1.0, dx);
}

Status load_norms(const Model& model, int block, BlockDefinition& definition, Backend& backend)
{
    const BlockNames names = model.architecture().block_names(model.config(), block);
    if (!names.router.empty())
        return usage_error(
            "reconstruction of whole blocks is for blocks with one MLP; this one routes tokens among "
            "experts",
            "block " + std::to_string(block), "Choose objective=layer, which needs moments only.");
    const std::pair<Norm*, const std::string*> norms[] = {
        {&definition.attention_norm, &names.attention_norm},
        {&definition.mlp_norm, &names.mlp_norm},
        {&definition.attention_result_norm, &names.attention_result_norm},
        {&definition.mlp_result_norm, &names.mlp_result_norm},
        {&definition.query_norm, &names.query_norm},
        {&definition.key_norm, &names.key_norm},
    };
    for (const auto& [norm, name] : norms) {
        auto loaded = Norm::load(model, *name, backend);
        if (!loaded)
            return loaded.error();
        *norm = std::move(*loaded);
    }
    return {};
}

Status load_biases(const Model& model, int block, BlockDefinition& definition, Backend& backend)
{
    for (const BlockPart& part : block_parts(model, block)) {
        if (!model.architecture().has_bias(model.config(), part.layer->role))
            continue;
        auto bias = model.checkpoint().read(part.layer->bias());
        if (!bias)
            return bias.error();
        const Buffer whole = backend.upload(*bias);
        definition.biases[part.role] = part.rows.empty() ? whole : backend.gather_columns(whole, part.rows);
    }
    return {};
}

} // namespace

std::vector<BlockPart> block_parts(const Model& model, int block)
{
    const bool by_head = model.architecture().block_traits(model.config(), block).rows_by_head;
    const Index width = model.config().intermediate;
    std::vector<BlockPart> parts;
    for (const LinearLayer& layer : model.linears()) {
        if (layer.block != block)
            continue;
        if (layer.role == Role::QueryKeyValue) {
            auto rows = fused_attention_parts(model.config(), by_head);
            parts.push_back({&layer, Role::Query, std::move(rows[0])});
            parts.push_back({&layer, Role::Key, std::move(rows[1])});
            parts.push_back({&layer, Role::Value, std::move(rows[2])});
        } else if (layer.role == Role::GateUp) {
            parts.push_back({&layer, Role::Gate, fused_range(0, width)});
            parts.push_back({&layer, Role::Up, fused_range(width, width)});
        } else {
            parts.push_back({&layer, layer.role, {}});
        }
    }
    return parts;
}

Result<DifferentiableBlock> DifferentiableBlock::load(const Model& model, int block, Backend& backend)
{
    if (model.rotation())
        return usage_error(
            "a rotated model turns activations between its products, which whole blocks taken by "
            "themselves do not",
            "block " + std::to_string(block),
            "Choose objective=layer, which needs moments only, or the model before its rotation.");
    const ModelConfig& config = model.config();
    BlockDefinition definition;
    definition.heads = config.heads;
    definition.kv_heads = config.kv_heads;
    definition.head_dim = config.head_dim;
    definition.score_cap = config.score_cap;
    definition.traits = model.architecture().block_traits(config, block);
    auto rotation = model.architecture().rotation(config, block);
    if (!rotation)
        return rotation.error();
    definition.rotation = std::move(*rotation);
    if (auto loaded = load_norms(model, block, definition, backend); !loaded)
        return loaded.error();
    if (auto loaded = load_biases(model, block, definition, backend); !loaded)
        return loaded.error();
    return DifferentiableBlock(std::move(definition));
}

AttentionShape DifferentiableBlock::attention_shape(Index sequence_length) const
{
    return {block_.heads,
            block_.kv_heads,
            block_.head_dim,
            sequence_length,
            block_.traits.attention_scale,
            block_.traits.window,
            block_.score_cap};
}

RopeShape DifferentiableBlock::rope_shape(Index heads, Index sequence_length) const
{
    return {heads, block_.head_dim, sequence_length, block_.rotation.of_length(sequence_length),
            block_.rotation.magnitude};
}

Buffer DifferentiableBlock::project(Role role, const Buffer& x, const BlockWeights& weights,
                                    Backend& backend) const
{
    Buffer y = backend.multiply(x, Transpose::No, weights.at(role), Transpose::Yes);
    if (const auto bias = block_.biases.find(role); bias != block_.biases.end())
        backend.add_bias(y, bias->second);
    return y;
}

Buffer DifferentiableBlock::attention(const Buffer& x, const BlockWeights& weights,
                                      const BlockQuantizers& quantizers, BlockTape& tape,
                                      Backend& backend) const
{
    const Index length = tape.sequence_length;
    tape.attention_input = rounded(quantizers.input, Role::Query, x);
    tape.raw_queries = project(Role::Query, tape.attention_input, weights, backend);
    tape.raw_keys = rounded(quantizers.keys_values, Role::Key,
                            project(Role::Key, tape.attention_input, weights, backend));
    tape.values = rounded(quantizers.keys_values, Role::Value,
                          project(Role::Value, tape.attention_input, weights, backend));
    tape.queries = block_.query_norm.apply(tape.raw_queries, backend);
    tape.keys = block_.key_norm.apply(tape.raw_keys, backend);
    if (const RopeShape shape = rope_shape(block_.heads, length); !shape.inverse_frequency.empty()) {
        // Without a norm they are the same buffer, whose unturned content nobody needs.
        backend.rope(tape.queries, shape);
        backend.rope(tape.keys, rope_shape(block_.kv_heads, length));
    }
    tape.mixed = rounded(quantizers.input, Role::Output,
                         backend.attention(tape.queries, tape.keys, tape.values, attention_shape(length)));
    tape.attention_result = project(Role::Output, tape.mixed, weights, backend);
    return block_.attention_result_norm.apply(tape.attention_result, backend);
}

Buffer DifferentiableBlock::mlp(const Buffer& x, const BlockWeights& weights,
                                const BlockQuantizers& quantizers, BlockTape& tape, Backend& backend) const
{
    tape.mlp_input = rounded(quantizers.input, Role::Up, x);
    tape.up = project(Role::Up, tape.mlp_input, weights, backend);
    Buffer inner;
    if (weights.contains(Role::Gate)) {
        tape.gate = project(Role::Gate, tape.mlp_input, weights, backend);
        inner = backend.copy(tape.gate);
        backend.activate_multiply(inner, tape.up, block_.traits.activation);
    } else {
        inner = backend.copy(tape.up);
        backend.activate(inner, block_.traits.activation);
    }
    tape.inner = rounded(quantizers.input, Role::Down, inner);
    tape.mlp_result = project(Role::Down, tape.inner, weights, backend);
    return block_.mlp_result_norm.apply(tape.mlp_result, backend);
}

Buffer DifferentiableBlock::forward(const Buffer& x, Index sequence_length, const BlockWeights& weights,
                                    const BlockQuantizers& quantizers, BlockTape* tape,
                                    Backend& backend) const
{
    BlockTape own;
    BlockTape& kept = tape ? *tape : own;
    kept.sequence_length = sequence_length;
    kept.x = x;
    Buffer y = backend.copy(x);
    const Buffer mixed =
        attention(block_.attention_norm.apply(x, backend), weights, quantizers, kept, backend);
    backend.add_scaled(1.0, mixed, 1.0, y);
    kept.middle = block_.traits.parallel_residual ? x : backend.copy(y);
    const Buffer result =
        mlp(block_.mlp_norm.apply(kept.middle, backend), weights, quantizers, kept, backend);
    backend.add_scaled(1.0, result, 1.0, y);
    return y;
}

Buffer DifferentiableBlock::mlp_backward(const Buffer& dy, const BlockWeights& weights, const BlockTape& tape,
                                         BlockGradient& gradient, Backend& backend) const
{
    const Buffer dresult = block_.mlp_result_norm.backward(tape.mlp_result, dy, backend).dx;
    Buffer dinner;
    linear_backward(Role::Down, dresult, tape.inner, weights, gradient, dinner, backend);
    Buffer dinput;
    if (weights.contains(Role::Gate)) {
        const GateGradient split =
            backend.activate_multiply_backward(tape.gate, tape.up, block_.traits.activation, dinner);
        linear_backward(Role::Gate, split.dgate, tape.mlp_input, weights, gradient, dinput, backend);
        linear_backward(Role::Up, split.dup, tape.mlp_input, weights, gradient, dinput, backend);
    } else {
        backend.activate_backward(tape.up, block_.traits.activation, dinner);
        linear_backward(Role::Up, dinner, tape.mlp_input, weights, gradient, dinput, backend);
    }
    NormGradient norm = block_.mlp_norm.backward(tape.middle, dinput, backend);
    gradient.mlp_gain = norm.dgain;
    return norm.dx;
}

Buffer DifferentiableBlock::attention_backward(const Buffer& dy, const BlockWeights& weights,
                                               const BlockTape& tape, BlockGradient& gradient,
                                               Backend& backend, InputGradient input) const
{
    const Index length = tape.sequence_length;
    const Buffer dresult = block_.attention_result_norm.backward(tape.attention_result, dy, backend).dx;
    Buffer dmixed;
    linear_backward(Role::Output, dresult, tape.mixed, weights, gradient, dmixed, backend);
    AttentionGradient split =
        backend.attention_backward(tape.queries, tape.keys, tape.values, dmixed, attention_shape(length));
    if (const RopeShape shape = rope_shape(block_.heads, length); !shape.inverse_frequency.empty()) {
        backend.rope_backward(split.dq, shape);
        backend.rope_backward(split.dk, rope_shape(block_.kv_heads, length));
    }
    split.dq = block_.query_norm.backward(tape.raw_queries, split.dq, backend).dx;
    split.dk = block_.key_norm.backward(tape.raw_keys, split.dk, backend).dx;
    if (input == InputGradient::No) {
        for (const auto& [role, dy_of] :
             {std::pair{Role::Query, &split.dq}, {Role::Key, &split.dk}, {Role::Value, &split.dv}})
            gradient.weights[role] = weight_gradient(*dy_of, tape.attention_input, backend);
        return {};
    }
    Buffer dinput;
    linear_backward(Role::Query, split.dq, tape.attention_input, weights, gradient, dinput, backend);
    linear_backward(Role::Key, split.dk, tape.attention_input, weights, gradient, dinput, backend);
    linear_backward(Role::Value, split.dv, tape.attention_input, weights, gradient, dinput, backend);
    NormGradient norm = block_.attention_norm.backward(tape.x, dinput, backend);
    gradient.attention_gain = norm.dgain;
    return norm.dx;
}

BlockGradient DifferentiableBlock::backward(Buffer dy, const BlockWeights& weights, const BlockTape& tape,
                                            Backend& backend, InputGradient input) const
{
    BlockGradient gradient;
    const Buffer through_mlp = mlp_backward(dy, weights, tape, gradient, backend);
    Buffer through_attention;
    if (block_.traits.parallel_residual)
        through_attention = attention_backward(dy, weights, tape, gradient, backend, input);
    backend.add_scaled(1.0, through_mlp, 1.0, dy);
    if (!block_.traits.parallel_residual)
        through_attention = attention_backward(dy, weights, tape, gradient, backend, input);
    if (input == InputGradient::No)
        return gradient;
    backend.add_scaled(1.0, through_attention, 1.0, dy);
    gradient.dx = std::move(dy);
    return gradient;
}

} // namespace rankscope
