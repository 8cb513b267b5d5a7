// SPDX-License-Identifier: GPL-3.0-or-later
// Gemma 2 and 3 (text): norms that store their gain's difference from 1, before and after attention and MLP;
// the embedding scaled by √hidden; a gated MLP with tanh-GELU; blocks that slide and blocks that do not.
// Gemma 2 caps scores and logits softly; Gemma 3 norms each head's query and key and turns sliding blocks by
// a base of their own.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

#include <cmath>

namespace rankscope::detail {
namespace {

class Gemma : public TableArchitecture {
public:
    /// Of `pattern` blocks the last one sees the whole text, unless config.json says otherwise.
    Gemma(FamilyTable table, std::int64_t pattern) : TableArchitecture(std::move(table)), pattern_(pattern) {}

    double embedding_scale(const ModelConfig& config) const override
    {
        return std::sqrt(static_cast<double>(config.hidden));
    }

protected:
    std::shared_ptr<TableArchitecture> clone() const override { return std::make_shared<Gemma>(*this); }
    bool slides_by_rule(const ModelConfig& config, int block) const override
    {
        const Json& written = config.raw["sliding_window_pattern"].is_null()
                                  ? config.raw["_sliding_window_pattern"]
                                  : config.raw["sliding_window_pattern"];
        const std::int64_t pattern = written.integer(pattern_);
        return pattern < 1 || (block + 1) % pattern != 0;
    }

private:
    std::int64_t pattern_;
};

FamilyTable gemma_table()
{
    FamilyTable table = llama_table();
    table.norms.mlp_norm = "pre_feedforward_layernorm.weight";
    table.norms.attention_result_norm = "post_attention_layernorm.weight";
    table.norms.mlp_result_norm = "post_feedforward_layernorm.weight";
    table.norm = NormKind::RootMeanSquareFromOne;
    table.window = true;
    table.activations = {"gelu_pytorch_tanh"};
    table.fixed = {{"use_bidirectional_attention", false}};
    for (LinearRow& row : table.linears)
        row.bias = row.role <= LinearRole::Output ? BiasRule::AttentionFlag : BiasRule::Never;
    ConfigKeys& keys = table.keys;
    keys.mlp_bias = nullptr;
    keys.activation = "hidden_activation";
    keys.default_activation = "gelu_pytorch_tanh";
    keys.query_scale = "query_pre_attn_scalar";
    keys.score_cap = "attn_logit_softcapping";
    keys.logit_cap = "final_logit_softcapping";
    keys.layer_types = true;
    keys.default_kv_heads = 4;
    keys.default_head_dim = 256;
    keys.default_window = 4096;
    keys.default_tied = true;
    return table;
}

} // namespace

std::shared_ptr<const Architecture> make_gemma2()
{
    FamilyTable table = gemma_table();
    table.id = "gemma2";
    table.title = "Gemma 2";
    table.keys.default_positions = 8192;
    table.keys.default_score_cap = 50.0;
    table.keys.default_logit_cap = 30.0;
    return std::make_shared<Gemma>(std::move(table), 2);
}

std::shared_ptr<const Architecture> make_gemma3_text()
{
    FamilyTable table = gemma_table();
    table.id = "gemma3_text";
    table.title = "Gemma 3";
    table.norms.query_norm = "self_attn.q_norm.weight";
    table.norms.key_norm = "self_attn.k_norm.weight";
    table.keys.default_positions = 131072;
    table.keys.default_rope_theta = 1e6;
    table.keys.default_local_rope_theta = 10000.0;
    return std::make_shared<Gemma>(std::move(table), 6);
}

} // namespace rankscope::detail
