// SPDX-License-Identifier: GPL-3.0-or-later
// Qwen 2 and 2.5: Llama with biases on q, k and v. Qwen 3: without them, but with a norm of each head's query
// and key before the rotation. Both may give their last blocks a sliding window, which is off unless switched
// on. Their MoE forms send each token to a few experts, each of whose matrices is a layer of its own; Qwen 2
// MoE (Qwen1.5-MoE too) adds an expert that all tokens pass, weighted by a gate. Routers and gates are not
// decomposed.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {
namespace {

class Qwen : public TableArchitecture {
public:
    using TableArchitecture::TableArchitecture;

protected:
    std::shared_ptr<TableArchitecture> clone() const override { return std::make_shared<Qwen>(*this); }
    bool slides_by_rule(const ModelConfig& config, int block) const override
    {
        constexpr std::int64_t k_default_full_blocks = 28;
        return block >= config.raw["max_window_layers"].integer(k_default_full_blocks);
    }
};

/// Qwen 2 MoE: every other one of the first blocks slides.
class Qwen2Moe : public TableArchitecture {
public:
    using TableArchitecture::TableArchitecture;

protected:
    std::shared_ptr<TableArchitecture> clone() const override { return std::make_shared<Qwen2Moe>(*this); }
    bool slides_by_rule(const ModelConfig& config, int block) const override
    {
        constexpr std::int64_t k_default_sliding_blocks = 28;
        return block % 2 == 0 && block < config.raw["max_window_layers"].integer(k_default_sliding_blocks);
    }
};

FamilyTable qwen_table()
{
    FamilyTable table = llama_table();
    table.window = true;
    table.keys.mlp_bias = nullptr;
    table.keys.layer_types = true;
    table.keys.window_is_switched = true;
    table.keys.default_window = 4096;
    table.keys.default_kv_heads = 32;
    table.keys.default_positions = 32768;
    for (LinearRow& row : table.linears)
        row.bias = BiasRule::Never;
    return table;
}

void add_head_norms(FamilyTable& table)
{
    table.norms.query_norm = "self_attn.q_norm.weight";
    table.norms.key_norm = "self_attn.k_norm.weight";
    for (LinearRow& row : table.linears) {
        if (row.role <= LinearRole::Output)
            row.bias = BiasRule::AttentionFlag;
    }
}

void add_experts(FamilyTable& table)
{
    for (auto& [role, name] : {std::pair{LinearRole::Gate, "gate_proj"},
                               {LinearRole::Up, "up_proj"},
                               {LinearRole::Down, "down_proj"}}) {
        for (LinearRow& row : table.linears) {
            if (row.role == role)
                row.name = name;
        }
    }
    table.experts = "mlp.experts.";
    table.dense_mlp = "mlp.";
    table.norms.router = "mlp.gate.weight";
    ConfigKeys& keys = table.keys;
    keys.experts = "num_experts";
    keys.experts_per_token = "num_experts_per_tok";
    keys.expert_width = "moe_intermediate_size";
    keys.routes_normalized = "norm_topk_prob";
    keys.sparse_step = "decoder_sparse_step";
    keys.dense_blocks = "mlp_only_layers";
}

} // namespace

std::shared_ptr<const Architecture> make_qwen2()
{
    FamilyTable table = qwen_table();
    table.id = "qwen2";
    table.title = "Qwen 2";
    table.keys.attention_bias = nullptr;
    for (LinearRow& row : table.linears) {
        if (row.role < LinearRole::Output)
            row.bias = BiasRule::Always;
    }
    return std::make_shared<Qwen>(std::move(table));
}

std::shared_ptr<const Architecture> make_qwen3()
{
    FamilyTable table = qwen_table();
    table.id = "qwen3";
    table.title = "Qwen 3";
    table.keys.default_head_dim = 128;
    add_head_norms(table);
    return std::make_shared<Qwen>(std::move(table));
}

std::shared_ptr<const Architecture> make_qwen2_moe()
{
    FamilyTable table = qwen_table();
    table.id = "qwen2_moe";
    table.title = "Qwen 2 MoE";
    table.keys.default_kv_heads = 16;
    table.keys.attention_bias = "qkv_bias";
    table.keys.default_bias = true;
    for (LinearRow& row : table.linears) {
        if (row.role < LinearRole::Output)
            row.bias = BiasRule::AttentionFlag;
    }
    add_experts(table);
    table.shared_expert = "mlp.shared_expert.";
    table.norms.shared_gate = "mlp.shared_expert_gate.weight";
    table.keys.shared_width = "shared_expert_intermediate_size";
    return std::make_shared<Qwen2Moe>(std::move(table));
}

std::shared_ptr<const Architecture> make_qwen3_moe()
{
    FamilyTable table = qwen_table();
    table.id = "qwen3_moe";
    table.title = "Qwen 3 MoE";
    table.keys.default_kv_heads = 4;
    table.keys.layer_types = false;
    add_head_norms(table);
    add_experts(table);
    return std::make_shared<TableArchitecture>(std::move(table)); // the window, if on, is every block's
}

} // namespace rankscope::detail
