// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/plan/budget.h"
#include "core/plan/error_curve.h"
#include "core/plan/layer_plan.h"

#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// A size for the included linears of a plan: so many bytes, or so many bits for each weight.
struct SizeBudget {
    double bits_per_weight = 0.0; ///< used where it is not 0
    std::uint64_t bytes = 0;
};
/// "2.6bpw", "60MB". Errors: Usage.
Result<SizeBudget> parse_budget(std::string_view text);
std::uint64_t budget_bytes(const SizeBudget& budget, const Plan& plan, const Model& model);

/// How much a layer's error counts.
enum class ErrorWeights : std::uint8_t {
    Equal,  ///< each layer's squared relative activation error alike
    Tokens, ///< the squared error of its outputs, summed over tokens
    Measured, ///< by how much the loss rises when this layer alone is compressed, for each unit of its error
};

/// How much the mean loss per token rises when one of the rows is carried out and nothing else is: a number for each.
using LossIncreases = std::function<Result<std::vector<double>>(std::span<const LayerPlan> rows)>;

/// What may be chosen. Locked rows keep all, rows named in `fixed_*` keep that parameter.
struct BudgetChoices {
    std::vector<std::int64_t> bits{2, 3, 4}; ///< for methods that have the parameter
    Index rank_step = 16;
    Index highest_rank = 256;
    ErrorWeights weights = ErrorWeights::Equal;
    LossIncreases loss_increases; ///< for ErrorWeights::Measured: asked once, for each row's cheapest option
    std::set<std::string, std::less<>> fixed_bits;
    std::set<std::string, std::less<>> fixed_ranks;
};

/// What was chosen for a row, with what the curves say of it.
struct RowPrediction {
    std::string layer;
    double squared_error = 0.0; ///< relative
    double weight = 1.0;        ///< ω, what the allotment multiplies it by
    bool interpolated = false;  ///< between measured ranks
};

struct BudgetedPlan {
    Plan plan;
    std::uint64_t budget_bytes = 0;
    Allocation allocation;
    std::vector<RowPrediction> rows; ///< of the included rows
    /// Root mean square of the rows' relative activation errors.
    double mean_error() const;
};

/// Ranks at which an iterative method is measured: 0, then doubling from the step, up to the highest
/// (methods-learned §5.2).
std::vector<Index> measured_ranks(Index step, Index highest);

/// Gives each included row the bits and the rank that make the weighted error least within the budget.
/// Measures the curves that the source's store lacks. Errors: Usage (budget too small, naming the least; no
/// such bits), and those of measure_curves.
Result<BudgetedPlan> fit_plan_to_budget(const Plan& plan, const SizeBudget& budget,
                                        const BudgetChoices& choices, const CurveSource& source);

} // namespace rankscope
