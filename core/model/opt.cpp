// SPDX-License-Identifier: GPL-3.0-or-later
// OPT: LayerNorm before attention and MLP, learned positions whose first row is the third (a leftover of
// fairseq's padding), ReLU, biases. OPT-350m differs (norms after, narrower embedding) and is refused.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {
namespace {

class Opt : public TableArchitecture {
public:
    using TableArchitecture::TableArchitecture;

    Status accepts(const ModelConfig& config) const override
    {
        const Json& width = config.raw["word_embed_proj_dim"];
        if (!width.is_null() && width.integer(-1) != config.hidden)
            return bad_input("an embedding narrower than the blocks is not known for OPT",
                             "key word_embed_proj_dim");
        return TableArchitecture::accepts(config);
    }

protected:
    std::shared_ptr<TableArchitecture> clone() const override { return std::make_shared<Opt>(*this); }
};

} // namespace

std::shared_ptr<const Architecture> make_opt()
{
    FamilyTable table;
    table.id = "opt";
    table.title = "OPT";
    table.prefix = "model.";
    table.layers = "decoder.layers.";
    table.embedding = "decoder.embed_tokens.weight";
    table.positions = "decoder.embed_positions.weight";
    table.first_position = 2;
    table.final_norm = "decoder.final_layer_norm.weight";
    table.norms.attention_norm = "self_attn_layer_norm.weight";
    table.norms.mlp_norm = "final_layer_norm.weight";
    table.norm = NormKind::MeanVariance;
    table.linears = {
        {LinearRole::Query, "self_attn.q_proj", BiasRule::AttentionFlag},
        {LinearRole::Key, "self_attn.k_proj", BiasRule::AttentionFlag},
        {LinearRole::Value, "self_attn.v_proj", BiasRule::AttentionFlag},
        {LinearRole::Output, "self_attn.out_proj", BiasRule::AttentionFlag},
        {LinearRole::Up, "fc1", BiasRule::MlpFlag},
        {LinearRole::Down, "fc2", BiasRule::MlpFlag},
    };
    table.activations = {"relu", "gelu"};
    table.fixed = {{"do_layer_norm_before", true},
                   {"_remove_final_layer_norm", false},
                   {"layer_norm_elementwise_affine", true}};
    ConfigKeys& keys = table.keys;
    keys.intermediate = "ffn_dim";
    keys.kv_heads = nullptr;
    keys.epsilon = nullptr;
    keys.default_epsilon = 1e-5;
    keys.activation = "activation_function";
    keys.default_activation = "relu";
    keys.attention_bias = "enable_bias";
    keys.mlp_bias = "enable_bias";
    keys.default_bias = true;
    keys.default_tied = true;
    keys.rotary = false;
    return std::make_shared<Opt>(std::move(table));
}

} // namespace rankscope::detail
