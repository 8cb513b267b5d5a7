// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/plan/layer_plan.h"

namespace rankscope::detail {

/// Values that a person gave for a row, by name.
using Given = std::map<std::string, ParameterValue, std::less<>>;

/// The whole number of this name; `fallback` where there is none.
std::int64_t integer_or(const Parameters& parameters, std::string_view name, std::int64_t fallback);

/// What a shape allows for the parameters that depend on it.
struct ShapeLimit {
    std::string_view name;
    Index limit;
    std::string_view meaning;
};

std::vector<ShapeLimit> shape_limits(const LinearLayer& layer);

/// Lowers the parameters not named in `kept` to what the shape allows.
Result<Parameters> fit_to_shape(const MethodInfo& method, Parameters parameters, const Given& kept,
                                const LinearLayer& layer);

/// The values with a rank that is a share ("10%") as the number of this layer. `layer` null: unknown.
Result<Given> with_resolved_rank(Given values, const LinearLayer* layer);

} // namespace rankscope::detail
