// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/teaching/steps.h"

#include <algorithm>
#include <numeric>

namespace rankscope {

Result<Decomposition> taught(const LessonInput& input, const Moments& moments, const TaughtMethod& method,
                             Backend& backend, Monitor& monitor)
{
    monitor.throw_if_cancelled();
    auto found = require_method(method.id);
    if (!found)
        return found.error();
    auto parameters = Parameters::make((*found)->info(), method.parameters);
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(input.weight);
    problem.moments = &moments;
    problem.name = input.layer;
    problem.seed = input.seed;
    problem.keep_iterates = method.iterates;
    return (*found)->decompose(problem, *parameters, backend, monitor);
}

Result<Decomposition> taught(const LessonInput& input, const TaughtMethod& method, Backend& backend,
                             Monitor& monitor)
{
    return taught(input, input.moments, method, backend, monitor);
}

VectorD input_energy(const Moments& moments) { return moments.hessian.diagonal().cwiseMax(0.0); }

std::vector<Index> strongest_channels(const VectorD& values, Index count)
{
    std::vector<Index> order(static_cast<std::size_t>(values.size()));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return values[a] > values[b]; });
    order.resize(static_cast<std::size_t>(std::clamp<Index>(count, 0, values.size())));
    std::sort(order.begin(), order.end());
    return order;
}

CurvePicture::Series trace_series(std::string name, SeriesRole role, const Decomposition& result)
{
    CurvePicture::Series series;
    series.name = std::move(name);
    series.role = role;
    const auto count = static_cast<Index>(result.trace.size());
    series.x.resize(count);
    series.y.resize(count);
    for (Index i = 0; i < count; ++i) {
        const IterationReport& report = result.trace[static_cast<std::size_t>(i)];
        series.x[i] = report.step;
        series.y[i] = report.relative_activation_error;
    }
    return series;
}

double least_error(const Decomposition& result)
{
    double least = 1.0;
    for (const IterationReport& report : result.trace)
        least = std::min(least, report.relative_activation_error);
    return least;
}

} // namespace rankscope
