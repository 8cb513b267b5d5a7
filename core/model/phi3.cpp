// SPDX-License-Identifier: GPL-3.0-or-later
// Phi 3: Llama with q, k, v in one matrix and gate, up in another. Both stay WHOLE here, one layer each:
// adapters (PEFT) and every runtime that reads the export know qkv_proj and gate_up_proj only, so a factor
// pair of a part would have no place to go; and the parts read the same activations, so that one
// decomposition of the whole shares its factors' rank among them.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {

std::shared_ptr<const Architecture> make_phi3()
{
    FamilyTable table = llama_table();
    table.id = "phi3";
    table.title = "Phi 3";
    table.linears = {
        {LinearRole::QueryKeyValue, "self_attn.qkv_proj"},
        {LinearRole::Output, "self_attn.o_proj"},
        {LinearRole::GateUp, "mlp.gate_up_proj"},
        {LinearRole::Down, "mlp.down_proj"},
    };
    table.window = true;
    table.partial_rotary = true;
    table.keys.attention_bias = nullptr;
    table.keys.mlp_bias = nullptr;
    table.keys.default_positions = 4096;
    table.keys.default_epsilon = 1e-5;
    return std::make_shared<TableArchitecture>(std::move(table));
}

} // namespace rankscope::detail
