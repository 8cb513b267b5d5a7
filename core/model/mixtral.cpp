// SPDX-License-Identifier: GPL-3.0-or-later
// Mixtral: Mistral with a router that sends each token to a few of a block's experts. Each expert's matrices
// are layers of their own, calibrated on the tokens that reach it. The router itself is small and decides
// discretely: it stays as it is.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {

std::shared_ptr<const Architecture> make_mixtral()
{
    FamilyTable table = llama_table();
    table.id = "mixtral";
    table.title = "Mixtral";
    table.linears = {
        {LinearRole::Query, "self_attn.q_proj"},
        {LinearRole::Key, "self_attn.k_proj"},
        {LinearRole::Value, "self_attn.v_proj"},
        {LinearRole::Output, "self_attn.o_proj"},
        {LinearRole::Gate, "w1"},
        {LinearRole::Up, "w3"},
        {LinearRole::Down, "w2"},
    };
    table.experts = "block_sparse_moe.experts.";
    table.norms.router = "block_sparse_moe.gate.weight";
    table.window = true;
    ConfigKeys& keys = table.keys;
    keys.attention_bias = nullptr;
    keys.mlp_bias = nullptr;
    keys.experts = "num_local_experts";
    keys.experts_per_token = "num_experts_per_tok";
    keys.default_kv_heads = 8;
    keys.default_positions = 131072;
    keys.default_epsilon = 1e-5;
    keys.default_rope_theta = 1e6;
    return std::make_shared<TableArchitecture>(std::move(table));
}

} // namespace rankscope::detail
