// SPDX-License-Identifier: GPL-3.0-or-later
// GPT-2: LayerNorm, learned positions, fused c_attn, a plain MLP. Its linears are stored by Conv1D as in ×
// out; the layers here are out × in as everywhere. OpenAI's own checkpoints have neither the prefix nor a
// head.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {

std::shared_ptr<const Architecture> make_gpt2()
{
    FamilyTable table;
    table.id = "gpt2";
    table.title = "GPT-2";
    table.prefix = "transformer.";
    table.layers = "h.";
    table.embedding = "wte.weight";
    table.positions = "wpe.weight";
    table.final_norm = "ln_f.weight";
    table.norms.attention_norm = "ln_1.weight";
    table.norms.mlp_norm = "ln_2.weight";
    table.norm = NormKind::MeanVariance;
    table.linears = {
        {LinearRole::QueryKeyValue, "attn.c_attn", BiasRule::Always},
        {LinearRole::Output, "attn.c_proj", BiasRule::Always},
        {LinearRole::Up, "mlp.c_fc", BiasRule::Always},
        {LinearRole::Down, "mlp.c_proj", BiasRule::Always},
    };
    table.transposed = true;
    table.activations = {"gelu_new", "gelu", "gelu_fast", "gelu_pytorch_tanh", "relu"};
    table.fixed = {{"scale_attn_weights", true},
                   {"scale_attn_by_inverse_layer_idx", false},
                   {"add_cross_attention", false}};
    ConfigKeys& keys = table.keys;
    keys.hidden = "n_embd";
    keys.intermediate = "n_inner";
    keys.intermediate_factor = 4;
    keys.blocks = "n_layer";
    keys.heads = "n_head";
    keys.kv_heads = nullptr;
    keys.positions = "n_positions";
    keys.default_positions = 1024;
    keys.epsilon = "layer_norm_epsilon";
    keys.default_epsilon = 1e-5;
    keys.activation = "activation_function";
    keys.default_activation = "gelu_new";
    keys.attention_bias = nullptr;
    keys.mlp_bias = nullptr;
    keys.default_tied = true;
    keys.rotary = false;
    return std::make_shared<TableArchitecture>(std::move(table));
}

} // namespace rankscope::detail
