// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/architecture.h"
#include "core/model/norm.h"

#include <functional>
#include <map>
#include <vector>

namespace rankscope {

class Model;

/// A decoder block without its linears: norms, biases, shapes.
struct BlockDefinition {
    Index heads = 0;
    Index kv_heads = 0;
    Index head_dim = 0;
    double score_cap = 0.0;
    BlockTraits traits;
    Rotation rotation;
    Norm attention_norm;
    Norm mlp_norm;
    Norm attention_result_norm;
    Norm mlp_result_norm;
    Norm query_norm;
    Norm key_norm;
    std::map<LinearRole, Buffer> biases; ///< 1 × out, where there are any
};

/// Query, Key, Value, Output, Down and Up, and Gate where the MLP has one: out × in each.
using BlockWeights = std::map<LinearRole, Buffer>;

/// What rounds activations while a block is trained; the gradient passes straight through. Empty: nothing.
struct BlockQuantizers {
    std::function<Buffer(LinearRole, const Buffer&)>
        input; ///< of a linear; Query stands for q, k, v, Up for gate and up
    std::function<Buffer(LinearRole, const Buffer&)>
        keys_values; ///< results of Key and Value, before the rotation
};

/// What one forward pass leaves for the backward pass.
struct BlockTape {
    Index sequence_length = 0;
    Buffer x, attention_input;
    Buffer raw_queries, raw_keys; ///< before their norms
    Buffer queries, keys, values, mixed;
    Buffer attention_result; ///< of the output projection, before its norm
    Buffer middle;           ///< what the MLP's norm reads
    Buffer mlp_input, gate, up, inner, mlp_result;
};

/// Gradients of one scalar loss.
struct BlockGradient {
    std::map<LinearRole, Buffer> weights;
    Buffer mlp_gain;       ///< of the two norms that read the hidden state
    Buffer attention_gain; ///< empty with InputGradient::No, as is dx
    Buffer dx;
};

/// Whether the gradient goes on to the block's input, which the learning of one block has no use for.
enum class InputGradient { No, Yes };

/// One decoder block as a function of its weights, with the gradient of each (methods-learned §1.5). It
/// computes what TransformerBlock computes, bit for bit, for blocks with one MLP. Float32 and float64.
class DifferentiableBlock {
public:
    explicit DifferentiableBlock(BlockDefinition definition) : block_(std::move(definition)) {}
    /// Errors: Usage (the block routes tokens among experts), those of the checkpoint.
    static Result<DifferentiableBlock> load(const Model& model, int block, Backend& backend);

    /// x: whole sequences, tokens × hidden. `tape` may be null.
    Buffer forward(const Buffer& x, Index sequence_length, const BlockWeights& weights,
                   const BlockQuantizers& quantizers, BlockTape* tape, Backend& backend) const;
    /// `dy`: gradient of forward's result, which is taken over.
    BlockGradient backward(Buffer dy, const BlockWeights& weights, const BlockTape& tape, Backend& backend,
                           InputGradient input = InputGradient::Yes) const;

private:
    AttentionShape attention_shape(Index sequence_length) const;
    RopeShape rope_shape(Index heads, Index sequence_length) const;
    Buffer attention(const Buffer& x, const BlockWeights& weights, const BlockQuantizers& quantizers,
                     BlockTape& tape, Backend& backend) const;
    Buffer mlp(const Buffer& x, const BlockWeights& weights, const BlockQuantizers& quantizers,
               BlockTape& tape, Backend& backend) const;
    Buffer attention_backward(const Buffer& dy, const BlockWeights& weights, const BlockTape& tape,
                              BlockGradient& gradient, Backend& backend, InputGradient input) const;
    Buffer mlp_backward(const Buffer& dy, const BlockWeights& weights, const BlockTape& tape,
                        BlockGradient& gradient, Backend& backend) const;
    Buffer project(LinearRole role, const Buffer& x, const BlockWeights& weights, Backend& backend) const;

    BlockDefinition block_;
};

/// A linear of a block, or the rows of a fused one that are one of its parts.
struct BlockPart {
    const LinearLayer* layer = nullptr;
    LinearRole role = LinearRole::Query;
    std::vector<Index> rows; ///< of the fused matrix; empty: all
};
/// The linears that DifferentiableBlock asks for, in order of execution.
std::vector<BlockPart> block_parts(const Model& model, int block);

} // namespace rankscope
