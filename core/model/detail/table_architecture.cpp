// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/table_architecture.h"

#include "core/model/detail/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace rankscope::detail {
namespace {

struct NamedActivation {
    std::string_view name;
    Activation activation;
};
/// Names of transformers; several stand for one function.
constexpr std::array k_activations = {
    NamedActivation{"silu", Activation::Silu},
    NamedActivation{"swish", Activation::Silu},
    NamedActivation{"gelu", Activation::Gelu},
    NamedActivation{"gelu_new", Activation::GeluTanh},
    NamedActivation{"gelu_fast", Activation::GeluTanh},
    NamedActivation{"gelu_pytorch_tanh", Activation::GeluTanh},
    NamedActivation{"relu", Activation::Relu},
};

Activation activation_of(std::string_view name)
{
    const auto found = std::find_if(k_activations.begin(), k_activations.end(),
                                    [name](const NamedActivation& one) { return one.name == name; });
    return found == k_activations.end() ? Activation::Silu : found->activation; // accepts() knows the names
}

/// Output and input features of a role; `width` is that of the MLP or expert it belongs to.
std::pair<Index, Index> shape_of(LinearRole role, const ModelConfig& config, Index width)
{
    const Index queries = config.heads * config.head_dim;
    const Index keys = config.kv_heads * config.head_dim;
    switch (role) {
    case LinearRole::Query:
        return {queries, config.hidden};
    case LinearRole::Key:
    case LinearRole::Value:
        return {keys, config.hidden};
    case LinearRole::QueryKeyValue:
        return {queries + 2 * keys, config.hidden};
    case LinearRole::Output:
        return {config.hidden, queries};
    case LinearRole::Gate:
    case LinearRole::Up:
        return {width, config.hidden};
    case LinearRole::GateUp:
        return {2 * width, config.hidden};
    case LinearRole::Down:
    case LinearRole::Other:
        break;
    }
    return {config.hidden, width};
}

/// 0 for what attention's norm feeds, 1 for the output, 2 for what the MLP's norm feeds, 3 for the way down.
int input_of(LinearRole role)
{
    if (role < LinearRole::Output)
        return 0;
    if (role == LinearRole::Output)
        return 1;
    return role == LinearRole::Down ? 3 : 2;
}

bool is_mlp(LinearRole role) { return role > LinearRole::Output; }

Index turned_features(const ModelConfig& config)
{
    return static_cast<Index>(static_cast<double>(config.head_dim) * config.rotary_share);
}

} // namespace

std::string TableArchitecture::block_prefix(int block) const
{
    return prefix_ + std::string(table_.layers) + std::to_string(block) + ".";
}

std::string TableArchitecture::positions() const
{
    return table_.positions.empty() ? std::string() : prefix_ + std::string(table_.positions);
}

std::vector<LinearLayer> TableArchitecture::linears(const ModelConfig& config) const
{
    std::vector<LinearLayer> all;
    const auto add_rows = [&](int block, bool of_mlp, std::string_view before, Index width, int expert) {
        std::array<std::string, 4> groups;
        for (const LinearRow& row : table_.linears) {
            if (is_mlp(row.role) != of_mlp)
                continue;
            const auto [out, in] = shape_of(row.role, config, width);
            const std::string name = block_prefix(block).append(before).append(row.name);
            std::string& group = groups[static_cast<std::size_t>(input_of(row.role))];
            if (group.empty())
                group = name;
            all.push_back({name, block, row.role, out, in, group, expert, table_.transposed});
        }
    };
    for (int block = 0; block < static_cast<int>(config.blocks); ++block) {
        add_rows(block, false, "", 0, -1);
        if (!has_experts(config, block)) {
            add_rows(block, true, table_.dense_mlp, config.intermediate, -1);
            continue;
        }
        for (int expert = 0; expert < static_cast<int>(config.experts); ++expert)
            add_rows(block, true, std::string(table_.experts) + std::to_string(expert) + ".",
                     config.expert_intermediate, expert);
        if (!table_.shared_expert.empty())
            add_rows(block, true, table_.shared_expert, config.shared_intermediate, -1);
    }
    return all;
}

bool TableArchitecture::has_experts(const ModelConfig& config, int block) const
{
    return !table_.experts.empty()
           && (config.dense.empty() || !config.dense[static_cast<std::size_t>(block)]);
}

BlockNames TableArchitecture::block_names(const ModelConfig& config, int block) const
{
    const std::string prefix = block_prefix(block);
    BlockNames names = table_.norms;
    if (!has_experts(config, block))
        names.router = names.shared_gate = "";
    for (std::string* name :
         {&names.attention_norm, &names.mlp_norm, &names.attention_result_norm, &names.mlp_result_norm,
          &names.query_norm, &names.key_norm, &names.router, &names.shared_gate}) {
        if (!name->empty())
            *name = prefix + *name;
    }
    return names;
}

bool TableArchitecture::has_bias(const ModelConfig& config, LinearRole role) const
{
    const auto row = std::find_if(table_.linears.begin(), table_.linears.end(),
                                  [role](const LinearRow& one) { return one.role == role; });
    if (row == table_.linears.end() || row->bias == BiasRule::Never)
        return false;
    if (row->bias == BiasRule::Always)
        return true;
    return row->bias == BiasRule::AttentionFlag ? config.attention_bias : config.mlp_bias;
}

Status TableArchitecture::accepts(const ModelConfig& config) const
{
    const auto& known = table_.activations;
    if (std::find(known.begin(), known.end(), config.activation) == known.end())
        return bad_input("the activation \"" + config.activation.substr(0, 80) + "\" is not known for "
                             + std::string(table_.title) + "; known: " + std::string(known.front()),
                         "key " + std::string(table_.keys.activation));
    for (const FixedKey& fixed : table_.fixed) {
        const Json& value = config.raw[fixed.key];
        if (!value.is_null() && (!value.is_bool() || value.boolean() != fixed.value))
            return bad_input("only " + std::string(fixed.value ? "true" : "false") + " is known for "
                                 + std::string(table_.title),
                             "key " + std::string(fixed.key));
    }
    if (config.sliding_window != 0 && !table_.window)
        return bad_input("a sliding window is not known for " + std::string(table_.title),
                         "key sliding_window");
    return table_.keys.rotary ? accepts_rotation(config) : Status{};
}

Status TableArchitecture::accepts_rotation(const ModelConfig& config) const
{
    const std::string key = "key " + std::string(table_.keys.rotary_share);
    if (config.rotary_share != 1.0 && !table_.partial_rotary)
        return bad_input("partly rotated heads are not known for " + std::string(table_.title), key);
    const Index turned = turned_features(config);
    if (turned < 2 || turned % 2 != 0)
        return bad_input("it turns " + std::to_string(turned) + " features of a head, but pairs are turned",
                         key);
    if (auto all = detail::rotation_of(config, turned, config.rope_theta, config.rope_scaling); !all)
        return all.error();
    if (config.local_rope_theta > 0.0) {
        if (auto local =
                detail::rotation_of(config, turned, config.local_rope_theta, config.local_rope_scaling);
            !local)
            return local.error();
    }
    return {};
}

bool TableArchitecture::slides(const ModelConfig& config, int block) const
{
    return config.slides.empty() ? slides_by_rule(config, block)
                                 : static_cast<bool>(config.slides[static_cast<std::size_t>(block)]);
}

BlockTraits TableArchitecture::block_traits(const ModelConfig& config, int block) const
{
    BlockTraits traits;
    traits.activation = activation_of(config.activation);
    traits.rows_by_head = table_.rows_by_head;
    const double scale = config.query_scale > 0.0 ? config.query_scale : static_cast<double>(config.head_dim);
    traits.attention_scale = 1.0 / std::sqrt(scale);
    traits.window = slides(config, block) ? config.sliding_window : 0;
    return traits;
}

Result<Rotation> TableArchitecture::rotation(const ModelConfig& config, int block) const
{
    if (!table_.keys.rotary)
        return Rotation{};
    const bool local = config.local_rope_theta > 0.0 && slides(config, block);
    return detail::rotation_of(config, turned_features(config),
                               local ? config.local_rope_theta : config.rope_theta,
                               local ? config.local_rope_scaling : config.rope_scaling);
}

std::shared_ptr<const Architecture> TableArchitecture::fitted_to(const CheckpointReader& reader) const
{
    const bool bare = !prefix_.empty() && !reader.find(embedding()) && reader.find(table_.embedding);
    const bool turned = table_.transposed && !stores_inputs_first(reader, bare ? "" : prefix_);
    if (!bare && !turned)
        return nullptr;
    auto fitted = clone();
    if (bare)
        fitted->prefix_.clear();
    if (turned)
        fitted->table_.transposed = false;
    return fitted;
}

/// Whether a fused matrix has its three outputs beside each other, as Conv1D stores it (GGUF has them below
/// each other). A checkpoint that leaves it unclear is checked against the usual form.
bool TableArchitecture::stores_inputs_first(const CheckpointReader& reader, const std::string& prefix) const
{
    const TensorInfo* fused = reader.find(prefix + std::string(table_.layers) + "0."
                                          + std::string(table_.linears.front().name) + ".weight");
    return !fused || fused->shape.size() != 2 || fused->shape[0] <= fused->shape[1];
}

} // namespace rankscope::detail
