// SPDX-License-Identifier: GPL-3.0-or-later
// Mistral: Llama with a sliding window in every block (null: none, as in later releases) and no biases.
#include "core/model/detail/architectures.h"
#include "core/model/detail/table_architecture.h"

namespace rankscope::detail {

std::shared_ptr<const Architecture> make_mistral()
{
    FamilyTable table = llama_table();
    table.id = "mistral";
    table.title = "Mistral";
    table.window = true;
    table.keys.attention_bias = nullptr;
    table.keys.mlp_bias = nullptr;
    table.keys.default_kv_heads = 8;
    table.keys.default_positions = 131072;
    table.keys.default_window = 4096;
    return std::make_shared<TableArchitecture>(std::move(table));
}

} // namespace rankscope::detail
