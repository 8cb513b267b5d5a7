// SPDX-License-Identifier: GPL-3.0-or-later
// One forward pass for all families: what differs between them is data (BlockTraits, BlockNames, the roles
// that the family's table lists), never the family's name.
#include "core/model/detail/fused_parts.h"
#include "core/model/model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

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

/// y = Q_a(x)·Wᵀ + (x·Rᵀ)·Lᵀ + b: the factors are never multiplied out.
Buffer apply(const LinearWeight& linear, const Buffer& x, Backend& backend)
{
    const Buffer seen = quantized_activations(x, linear.activations, backend);
    Buffer y = backend.multiply(seen, Transpose::No, linear.weight, Transpose::Yes);
    if (!linear.left.empty()) {
        const Buffer inner = backend.multiply(x, Transpose::No, linear.right, Transpose::Yes);
        backend.gemm(1.0, inner, Transpose::No, linear.left, Transpose::Yes, 1.0, y);
    }
    if (!linear.bias.empty())
        backend.add_bias(y, linear.bias);
    return y;
}

/// The tokens that one expert gets, and with which weight each counts.
struct Share {
    std::vector<Index> tokens;
    std::vector<float> weights;
};

/// Softmax over all experts; each token goes to its best ones, whose weights are scaled to sum to 1 where the
/// model does so.
std::vector<Share> route(const Matrix& scores, Index chosen, bool normalized)
{
    std::vector<Share> shares(static_cast<std::size_t>(scores.cols()));
    std::vector<Index> order(static_cast<std::size_t>(scores.cols()));
    for (Index token = 0; token < scores.rows(); ++token) {
        const auto row = scores.row(token);
        std::iota(order.begin(), order.end(), Index{0});
        std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return row[a] > row[b]; });
        double total = 0.0;
        const auto weight = [&](Index i) {
            return std::exp(
                static_cast<double>(row[order[static_cast<std::size_t>(i)]] - row[order.front()]));
        };
        for (Index i = 0; i < (normalized ? chosen : scores.cols()); ++i)
            total += weight(i);
        for (Index i = 0; i < chosen; ++i) {
            Share& share = shares[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
            share.tokens.push_back(token);
            share.weights.push_back(static_cast<float>(weight(i) / total));
        }
    }
    return shares;
}

struct LoadedLinear {
    LinearLayer layer;
    LinearWeight weight;
};

/// Of one block: role and expert (−1: none) name a linear.
using LoadedLinears = std::map<std::pair<LinearRole, int>, LoadedLinear>;

} // namespace

struct TransformerBlock::Parts {
    ModelConfig config;
    BlockTraits traits;
    Norm attention_norm;
    Norm mlp_norm;
    Norm attention_result_norm;
    Norm mlp_result_norm;
    Norm query_norm;
    Norm key_norm;
    Buffer router;      ///< experts × hidden, or empty
    Buffer head_mix; ///< of a rotated model, whose MLP turns its inner activations too; else empty
    Buffer shared_gate; ///< 1 × hidden, or empty
    LoadedLinears linears;
    std::array<FusedPart, 3> fused; ///< of q, k, v
    Rotation rotation;

    bool has(LinearRole role, int expert = -1) const { return linears.contains({role, expert}); }
    Status load_norms(const Model& model, int block, Backend& backend);
    Status load_linears(const Model& model, const WeightSource& weights, int block, Backend& backend);
    bool complete() const;
};

Status TransformerBlock::Parts::load_norms(const Model& model, int block, Backend& backend)
{
    const BlockNames names = model.architecture().block_names(config, block);
    const std::pair<Norm*, const std::string*> norms[] = {
        {&attention_norm, &names.attention_norm},
        {&mlp_norm, &names.mlp_norm},
        {&attention_result_norm, &names.attention_result_norm},
        {&mlp_result_norm, &names.mlp_result_norm},
        {&query_norm, &names.query_norm},
        {&key_norm, &names.key_norm},
    };
    for (const auto& [norm, name] : norms) {
        auto loaded = Norm::load(model, *name, backend);
        if (!loaded)
            return loaded.error();
        *norm = std::move(*loaded);
    }
    for (const auto& [matrix, name] :
         {std::pair{&router, &names.router}, {&shared_gate, &names.shared_gate}}) {
        if (name->empty())
            continue;
        auto read = model.checkpoint().read(*name);
        if (!read)
            return read.error();
        *matrix = backend.upload(*read);
    }
    return {};
}

Status TransformerBlock::Parts::load_linears(const Model& model, const WeightSource& weights, int block,
                                             Backend& backend)
{
    for (const LinearLayer& layer : model.linears()) {
        if (layer.block != block)
            continue;
        auto weight = weights.prepared_linear(layer, backend);
        if (!weight)
            return weight.error();
        if (auto fits = check_shapes(layer, *weight); !fits)
            return fits.error();
        linears[{layer.role, layer.expert}] = {layer, std::move(*weight)};
    }
    return complete() ? Status{} : internal_error("block " + std::to_string(block) + " lacks a linear");
}

/// Whether the forward pass finds every linear that it asks for.
bool TransformerBlock::Parts::complete() const
{
    const bool separate = has(LinearRole::Query) && has(LinearRole::Key) && has(LinearRole::Value);
    bool all = (separate || has(LinearRole::QueryKeyValue)) && has(LinearRole::Output);
    const int first = router.empty() || !shared_gate.empty() ? -1 : 0;
    const int end = router.empty() ? 0 : static_cast<int>(config.experts);
    for (int expert = first; expert < end; ++expert)
        all = all && has(LinearRole::Down, expert)
              && (has(LinearRole::Up, expert) || has(LinearRole::GateUp, expert));
    return all;
}

namespace {

/// One pass of tokens through a block.
template <class Parts>
class Pass {
public:
    Pass(const Parts& parts, Index sequence_length, Backend& backend, const InputObserver& observer)
        : parts_(parts), length_(sequence_length), backend_(backend), observer_(observer)
    {}

    /// What attention adds to the hidden state whose norm x is.
    Buffer attention(const Buffer& x)
    {
        const ModelConfig& config = parts_.config;
        auto [q, k, v] = queries_keys_values(x);
        q = parts_.query_norm.apply(q, backend_);
        k = parts_.key_norm.apply(k, backend_);
        if (const auto& frequencies = parts_.rotation.of_length(length_); !frequencies.empty()) {
            const double magnitude = parts_.rotation.magnitude;
            backend_.rope(q, {config.heads, config.head_dim, length_, frequencies, magnitude});
            backend_.rope(k, {config.kv_heads, config.head_dim, length_, frequencies, magnitude});
        }
        const AttentionShape shape{
            config.heads,         config.kv_heads, config.head_dim, length_, parts_.traits.attention_scale,
            parts_.traits.window, config.score_cap};
        Buffer mixed = backend_.attention(q, k, v, shape);
        if (!parts_.head_mix.empty())
            mixed = backend_.multiply(mixed, Transpose::No, parts_.head_mix, Transpose::Yes);
        observe(LinearRole::Output, -1, mixed);
        return parts_.attention_result_norm.apply(project(LinearRole::Output, -1, mixed), backend_);
    }

    /// What the MLP, or the chosen experts, add.
    Buffer mlp(const Buffer& x)
    {
        const Buffer result = parts_.router.empty() ? expert(x, -1) : experts(x);
        return parts_.mlp_result_norm.apply(result, backend_);
    }

private:
    const LoadedLinear& linear(LinearRole role, int expert) const
    {
        return parts_.linears.at({role, expert});
    }
    void observe(LinearRole role, int expert, const Buffer& x) const
    {
        if (observer_)
            observer_(linear(role, expert).layer.input_group, x, expert_rows_);
    }
    Buffer project(LinearRole role, int expert, const Buffer& x) const
    {
        return apply(linear(role, expert).weight, x, backend_);
    }

    std::array<Buffer, 3> queries_keys_values(const Buffer& x)
    {
        if (!parts_.has(LinearRole::QueryKeyValue)) {
            observe(LinearRole::Query, -1, x);
            Buffer q = project(LinearRole::Query, -1, x);
            Buffer k = project(LinearRole::Key, -1, x);
            return {std::move(q), std::move(k), project(LinearRole::Value, -1, x)};
        }
        observe(LinearRole::QueryKeyValue, -1, x);
        const Buffer fused = project(LinearRole::QueryKeyValue, -1, x);
        return {backend_.gather_columns(fused, parts_.fused[0]),
                backend_.gather_columns(fused, parts_.fused[1]),
                backend_.gather_columns(fused, parts_.fused[2])};
    }

    /// The MLP itself (−1), or one of many.
    Buffer expert(const Buffer& x, int number)
    {
        Buffer inner = activated(x, number);
        if (!parts_.head_mix.empty())
            backend_.hadamard(inner, Transpose::No);
        observe(LinearRole::Down, number, inner);
        return project(LinearRole::Down, number, inner);
    }

    Buffer activated(const Buffer& x, int number)
    {
        const Activation activation = parts_.traits.activation;
        if (parts_.has(LinearRole::GateUp, number)) {
            observe(LinearRole::GateUp, number, x);
            const Buffer fused = project(LinearRole::GateUp, number, x);
            const Index width = parts_.config.intermediate;
            Buffer gate = backend_.gather_columns(fused, fused_range(0, width));
            backend_.activate_multiply(gate, backend_.gather_columns(fused, fused_range(width, width)), activation);
            return gate;
        }
        if (parts_.has(LinearRole::Gate, number)) {
            observe(LinearRole::Gate, number, x);
            Buffer gate = project(LinearRole::Gate, number, x);
            backend_.activate_multiply(gate, project(LinearRole::Up, number, x), activation);
            return gate;
        }
        observe(LinearRole::Up, number, x);
        Buffer inner = project(LinearRole::Up, number, x);
        backend_.activate(inner, activation);
        return inner;
    }

    Buffer experts(const Buffer& x)
    {
        const Buffer scores = backend_.multiply(x, Transpose::No, parts_.router, Transpose::Yes);
        const std::vector<Share> shares = route(backend_.download(scores), parts_.config.experts_per_token,
                                                parts_.config.routes_normalized);
        Buffer sum = parts_.shared_gate.empty() ? backend_.allocate(x.rows(), x.cols()) : shared_expert(x);
        for (std::size_t number = 0; number < shares.size(); ++number) {
            const Share& share = shares[number];
            if (share.tokens.empty())
                continue;
            expert_rows_ = share.tokens;
            const Buffer result = expert(backend_.gather_rows(x, share.tokens), static_cast<int>(number));
            expert_rows_ = {};
            // Back to their rows by a product, which every backend has: small beside the expert's own.
            Matrix spread = Matrix::Zero(x.rows(), result.rows());
            for (std::size_t i = 0; i < share.tokens.size(); ++i)
                spread(share.tokens[i], static_cast<Index>(i)) = share.weights[i];
            backend_.gemm(1.0, backend_.upload(spread), Transpose::No, result, Transpose::No, 1.0, sum);
        }
        return sum;
    }

    /// The expert that all tokens pass, each with a weight of its own between 0 and 1.
    Buffer shared_expert(const Buffer& x)
    {
        const Matrix scores =
            backend_.download(backend_.multiply(x, Transpose::No, parts_.shared_gate, Transpose::Yes));
        Buffer result = expert(x, -1);
        backend_.scale_rows(result, (1.0 + (-scores.col(0).cast<double>().array()).exp()).inverse().matrix());
        return result;
    }

    const Parts& parts_;
    Index length_;
    Backend& backend_;
    const InputObserver& observer_;
    std::span<const Index> expert_rows_; ///< while an expert computes: the tokens it got
};

} // namespace

Result<TransformerBlock> TransformerBlock::load(const Model& model, const WeightSource& weights, int block,
                                                Backend& backend)
{
    if (auto runs = model.architecture().runs(); !runs)
        return runs.error();
    const auto parts = std::make_shared<Parts>();
    parts->config = model.config();
    parts->traits = model.architecture().block_traits(model.config(), block);
    if (auto loaded = parts->load_norms(model, block, backend); !loaded)
        return loaded.error();
    if (auto loaded = parts->load_linears(model, weights, block, backend); !loaded)
        return loaded.error();
    if (model.rotation()) {
        const MatrixD mix = head_mix(model.config().heads, model.config().head_dim);
        parts->head_mix = backend.upload(Matrix(mix.cast<float>()));
    }
    parts->fused = fused_attention_parts(model.config(), parts->traits.rows_by_head);
    auto rotation = model.architecture().rotation(model.config(), block);
    if (!rotation)
        return rotation.error();
    parts->rotation = std::move(*rotation);
    return TransformerBlock(parts);
}

void TransformerBlock::forward(Buffer& hidden, Index sequence_length, Backend& backend,
                               const InputObserver& observer) const
{
    Pass pass(*parts_, sequence_length, backend, observer);
    const Buffer mixed = pass.attention(parts_->attention_norm.apply(hidden, backend));
    if (parts_->traits.parallel_residual) {
        const Buffer result = pass.mlp(parts_->mlp_norm.apply(hidden, backend));
        backend.add_scaled(1.0, mixed, 1.0, hidden);
        backend.add_scaled(1.0, result, 1.0, hidden);
        return;
    }
    backend.add_scaled(1.0, mixed, 1.0, hidden);
    backend.add_scaled(1.0, pass.mlp(parts_->mlp_norm.apply(hidden, backend)), 1.0, hidden);
}

} // namespace rankscope
