// SPDX-License-Identifier: GPL-3.0-or-later
// GPT-NeoX and Pythia: LayerNorm, a fused matrix whose rows are q, k, v of one head after the other (kept
// whole, as in Phi 3), heads turned in part, attention and MLP beside each other.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {
namespace {

class GptNeoX : public TableArchitecture {
public:
    using TableArchitecture::TableArchitecture;

    BlockTraits block_traits(const ModelConfig& config, int block) const override
    {
        BlockTraits traits = TableArchitecture::block_traits(config, block);
        traits.parallel_residual = config.raw["use_parallel_residual"].boolean(true);
        return traits;
    }

protected:
    std::shared_ptr<TableArchitecture> clone() const override { return std::make_shared<GptNeoX>(*this); }
};

} // namespace

std::shared_ptr<const Architecture> make_gpt_neox()
{
    FamilyTable table;
    table.id = "gpt_neox";
    table.title = "GPT-NeoX";
    table.prefix = "gpt_neox.";
    table.layers = "layers.";
    table.embedding = "embed_in.weight";
    table.final_norm = "final_layer_norm.weight";
    table.head = "embed_out.weight";
    table.norms.attention_norm = "input_layernorm.weight";
    table.norms.mlp_norm = "post_attention_layernorm.weight";
    table.norm = NormKind::MeanVariance;
    table.linears = {
        {LinearRole::QueryKeyValue, "attention.query_key_value", BiasRule::AttentionFlag},
        {LinearRole::Output, "attention.dense", BiasRule::AttentionFlag},
        {LinearRole::Up, "mlp.dense_h_to_4h", BiasRule::Always},
        {LinearRole::Down, "mlp.dense_4h_to_h", BiasRule::Always},
    };
    table.rows_by_head = true;
    table.partial_rotary = true;
    table.activations = {"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"};
    ConfigKeys& keys = table.keys;
    keys.kv_heads = nullptr;
    keys.epsilon = "layer_norm_eps";
    keys.default_epsilon = 1e-5;
    keys.default_activation = "gelu";
    keys.mlp_bias = nullptr;
    keys.default_bias = true;
    keys.rope_theta = "rotary_emb_base";
    keys.rotary_share = "rotary_pct";
    keys.default_rotary_share = 0.25;
    return std::make_shared<GptNeoX>(std::move(table));
}

} // namespace rankscope::detail
