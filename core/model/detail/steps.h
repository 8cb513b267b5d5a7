// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <string_view>

namespace rankscope::detail {

/// Hands each step of a part of a tokenizer.json to `use`, in order: the part itself, or the members of a
/// "Sequence" in the list `list_key`, which may be nested eight deep. Null is no step. A Sequence that is
/// deeper or has no list goes to `use`, which does not know it.
template <class Use>
Status for_each_step(const Json& json, std::string_view list_key, const Use& use, int depth = 0)
{
    constexpr int k_max_nesting = 8;
    if (json.is_null())
        return {};
    const auto* parts = json[list_key].array_if();
    if (json["type"].string() != "Sequence" || !parts || depth == k_max_nesting)
        return use(json);
    for (const Json& part : *parts) {
        if (auto used = for_each_step(part, list_key, use, depth + 1); !used)
            return used;
    }
    return {};
}

} // namespace rankscope::detail
