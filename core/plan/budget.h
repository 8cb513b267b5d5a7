// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/base/result.h"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace rankscope {

/// One way to store a layer, and what it costs in the model's error.
struct BudgetOption {
    std::uint64_t bytes = 0;
    double error = 0.0; ///< ≥ 0

    bool operator==(const BudgetOption&) const = default;
};

/// A layer, or several that share their choice, with the options of which one is to be taken.
struct BudgetLayer {
    std::vector<BudgetOption> options;
    double weight = 1.0;            ///< ω: multiplies the error of each option
    std::optional<std::size_t> pin; ///< only this option may be taken
};

struct AllocationOptions {
    bool exact = true; ///< false: the relaxation and its rounding only, for a slider being dragged
    std::size_t max_states = 200'000; ///< partial sums kept at a time; beyond it nothing is proven any more
};

/// One option per layer.
struct Allocation {
    std::vector<std::size_t> choices; ///< index into each layer's options
    double error = 0.0;               ///< Σ ω·error of the choices
    std::uint64_t bytes = 0;
    double lower_bound = 0.0; ///< no choice within the budget has a smaller error (linear relaxation)
    bool proven = false;      ///< `error` is the least there is
};

/// The multiple-choice knapsack (methods-learned §5.3): the options of least total error whose bytes stay
/// within the budget. Relaxation over the layers' convex hulls first, then a search over Pareto-optimal
/// partial sums that drops what the relaxation of the remaining layers cannot save. Errors: Usage (a layer
/// without options, an error that is negative or not finite, a pin beyond the options; a budget below
/// least_bytes, naming both). Throws Cancelled.
Result<Allocation> allocate(std::span<const BudgetLayer> layers, std::uint64_t budget,
                            const AllocationOptions& options = {}, Monitor& monitor = silent_monitor());

/// What the layers take at least, pins respected. Errors: Usage, as allocate.
Result<std::uint64_t> least_bytes(std::span<const BudgetLayer> layers);

/// Layers that must take the same option (one number of bits for q, k and v) as one: bytes and weighted
/// errors are summed option by option. Errors: Usage (none, different numbers of options, pins that
/// contradict each other).
Result<BudgetLayer> couple(std::span<const BudgetLayer> layers);

} // namespace rankscope
