// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/golden/golden_case.h"
#include "app/cli/golden/verdict.h"
#include "core/compute/backend.h"
#include "core/methods/method.h"

#include <string_view>
#include <vector>

namespace rankscope::golden {

/// Computes what a case of one method asks for, through core's public interfaces, and compares.
struct Handler {
    std::string_view method;             ///< the case's `method`
    std::vector<std::string_view> needs; ///< tensors without which the case makes no sense
    Status (*check)(const GoldenCase&, Backend&, Verdict&);
};

/// Null when no part of this program computes that.
const Handler* find_handler(std::string_view method);

// The parts of the table, one a file.
std::vector<Handler> rounding_handlers();
std::vector<Handler> codebook_handlers();
std::vector<Handler> low_rank_handlers();
std::vector<Handler> joint_handlers();
std::vector<Handler> lrc_handlers();
std::vector<Handler> learned_handlers();
std::vector<Handler> transform_handlers();
std::vector<Handler> statistics_handlers();
std::vector<Handler> planning_handlers();
std::vector<Handler> evaluation_handlers();

// What several handlers do alike
// --------------------------------------------------------------------------------

/// A parameter as a number, or `fallback` when the case does not give it.
Index integer_parameter(const GoldenCase& golden, std::string_view name, Index fallback);
/// bits, group, symmetric, sym_rule, clip_search and the search's constants.
UniformGrid grid_parameter(const GoldenCase& golden);

/// Runs a registered method with the case's parameters on tensor W. Names of a case that mean what this build
/// always does
/// ("rht": false) are accepted; other unknown ones, or other values of these, are an error. `changed` wins over
/// the case.
Result<Decomposition> run_method(std::string_view id, const GoldenCase& golden, const Moments* moments,
                                 Backend& backend,
                                 const std::map<std::string, ParameterValue, std::less<>>& changed = {});

/// H as the case gives it, or X·Xᵀ/tokens of its X with the mean |x|.
Moments case_moments(const GoldenCase& golden);
/// The same with damping as the methods apply it.
Moments damped_moments(const GoldenCase& golden);

} // namespace rankscope::golden
