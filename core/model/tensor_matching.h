// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/model/model.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rankscope {

/// Which tensor of one checkpoint is which of another, whatever they are called: linears of known roles by
/// block, role and expert, all other tensors by name. Shapes may differ.
struct TensorMatching {
    std::vector<std::pair<std::string, std::string>> pairs; ///< in the first one's order
    std::vector<std::string> only_first;                    ///< tensors without a partner, in order
    std::vector<std::string> only_second;

    /// The second one's tensor; empty: none.
    std::string_view partner(std::string_view first) const;
};
TensorMatching match_tensors(const Model& first, const Model& second);

/// The second one's layer that a linear of the first one corresponds to; null: none.
const LinearLayer* partner_layer(const TensorMatching& matching, const Model& second,
                                 const LinearLayer& layer);

} // namespace rankscope
