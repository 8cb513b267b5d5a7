// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/model/detail/fused_parts.h"

#include <numeric>

namespace rankscope {

FusedPart fused_range(Index first, Index count)
{
    FusedPart part(static_cast<std::size_t>(count));
    std::iota(part.begin(), part.end(), first);
    return part;
}

std::array<FusedPart, 3> fused_attention_parts(const ModelConfig& config, bool by_head)
{
    const Index queries = config.heads * config.head_dim;
    const Index keys = config.kv_heads * config.head_dim;
    if (!by_head)
        return {fused_range(0, queries), fused_range(queries, keys), fused_range(queries + keys, keys)};
    std::array<FusedPart, 3> parts;
    for (Index head = 0; head < config.heads; ++head) {
        for (std::size_t part = 0; part < parts.size(); ++part) {
            const FusedPart rows =
                fused_range((3 * head + static_cast<Index>(part)) * config.head_dim, config.head_dim);
            parts[part].insert(parts[part].end(), rows.begin(), rows.end());
        }
    }
    return parts;
}

} // namespace rankscope
