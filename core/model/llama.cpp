// SPDX-License-Identifier: GPL-3.0-or-later
// Llama 1 to 3 and everything that transformers stores as model_type "llama": RMSNorm before attention and
// MLP, grouped query attention with rotary positions that turn (i, i + d/2), a SiLU-gated MLP, optional
// biases.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {

FamilyTable llama_table()
{
    FamilyTable table;
    table.id = "llama";
    table.title = "Llama";
    table.prefix = "model.";
    table.layers = "layers.";
    table.embedding = "embed_tokens.weight";
    table.final_norm = "norm.weight";
    table.norms.attention_norm = "input_layernorm.weight";
    table.norms.mlp_norm = "post_attention_layernorm.weight";
    table.linears = {
        {LinearRole::Query, "self_attn.q_proj", BiasRule::AttentionFlag},
        {LinearRole::Key, "self_attn.k_proj", BiasRule::AttentionFlag},
        {LinearRole::Value, "self_attn.v_proj", BiasRule::AttentionFlag},
        {LinearRole::Output, "self_attn.o_proj", BiasRule::AttentionFlag},
        {LinearRole::Gate, "mlp.gate_proj", BiasRule::MlpFlag},
        {LinearRole::Up, "mlp.up_proj", BiasRule::MlpFlag},
        {LinearRole::Down, "mlp.down_proj", BiasRule::MlpFlag},
    };
    return table;
}

std::shared_ptr<const Architecture> make_llama()
{
    return std::make_shared<TableArchitecture>(llama_table());
}

} // namespace rankscope::detail
