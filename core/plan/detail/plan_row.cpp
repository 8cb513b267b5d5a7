// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/detail/plan_row.h"

#include "core/methods/rank_share.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::detail {

std::int64_t integer_or(const Parameters& parameters, std::string_view name, std::int64_t fallback)
{
    const auto found = parameters.values().find(name);
    if (found == parameters.values().end())
        return fallback;
    const auto* number = std::get_if<std::int64_t>(&found->second);
    return number ? *number : fallback;
}

std::vector<ShapeLimit> shape_limits(const LinearLayer& layer)
{
    return {{"rank", std::min(layer.out, layer.in), "rank"}, {"k", layer.in, "number of outlier channels"}};
}

Result<Parameters> fit_to_shape(const MethodInfo& method, Parameters parameters, const Given& kept,
                                const LinearLayer& layer)
{
    for (const ShapeLimit& limit : shape_limits(layer)) {
        if (!method.find(limit.name) || kept.contains(limit.name)
            || integer_or(parameters, limit.name, 0) <= limit.limit)
            continue;
        auto lowered = parameters.with(method, limit.name, ParameterValue(std::int64_t{limit.limit}));
        if (!lowered)
            return lowered.error().in(layer.name);
        parameters = std::move(*lowered);
    }
    return parameters;
}

Result<Given> with_resolved_rank(Given values, const LinearLayer* layer)
{
    const auto rank = values.find("rank");
    if (rank == values.end())
        return values;
    const auto* text = std::get_if<std::string>(&rank->second);
    if (!layer && text && text->ends_with('%'))
        return usage_error(fmt::format("rank {} is a share of a layer whose shape is not known here", *text),
                           {}, "Give the rank as a whole number");
    auto resolved = resolved_rank(rank->second, layer ? layer->out : 0, layer ? layer->in : 0);
    if (!resolved)
        return resolved.error();
    rank->second = std::move(*resolved);
    return values;
}

} // namespace rankscope::detail
