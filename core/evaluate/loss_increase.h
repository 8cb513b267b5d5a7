// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/evaluate/perplexity.h"
#include "core/plan/error_curve.h"

#include <memory>
#include <span>
#include <vector>

namespace rankscope {

/// How the loss is measured for each layer (methods-learned §5.2, `measured`).
struct LossIncreaseOptions {
    std::filesystem::path text;
    PerplexityOptions windows; ///< max_tokens: 4096 of the text are enough
    std::uint64_t seed = 0;    ///< the plan's
};

/// By how much the mean loss per token rises when each row is carried out alone, all other layers exact; may
/// be negative by chance. A layer's forward pass begins at its own block, with the states that the blocks
/// before it gave to all. Values are kept in the curve store, which is saved at the end. Errors: those of
/// perplexity() and of Method::decompose, naming the layer.
Result<std::vector<double>> loss_increases(const std::shared_ptr<const Model>& model,
                                           std::span<const LayerPlan> rows, const CurveSource& source,
                                           const LossIncreaseOptions& options);

} // namespace rankscope
