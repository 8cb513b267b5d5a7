// SPDX-License-Identifier: GPL-3.0-or-later
// Qwen 2 and 2.5: Llama with biases on q, k and v. Qwen 3: without them, but with a norm of each head's query
// and key before the rotation. Both may give their last blocks a sliding window, which is off unless switched
// on.
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
    table.norms.query_norm = "self_attn.q_norm.weight";
    table.norms.key_norm = "self_attn.k_norm.weight";
    for (LinearRow& row : table.linears) {
        if (row.role <= LinearRole::Output)
            row.bias = BiasRule::AttentionFlag;
    }
    return std::make_shared<Qwen>(std::move(table));
}

} // namespace rankscope::detail
