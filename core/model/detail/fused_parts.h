// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/model_config.h"

#include <array>
#include <vector>

namespace rankscope {

/// Rows of a fused matrix, which are columns of its product.
using FusedPart = std::vector<Index>;

/// [first, first + count).
FusedPart fused_range(Index first, Index count);

/// Where q, k and v stand in their fused matrix: as wholes one after the other, or head by head.
std::array<FusedPart, 3> fused_attention_parts(const ModelConfig& config, bool by_head);

} // namespace rankscope
