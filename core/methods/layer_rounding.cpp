// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/layer_rounding.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope {

DampedLayer damped_layer(const LayerProblem& problem, double damp, Backend& backend, Monitor& monitor)
{
    monitor.throw_if_cancelled();
    DampedLayer layer{problem.weight, problem.moments->hessian};
    Matrix weight = backend.download(problem.weight);
    const Index dead = prepare_hessian(layer.hessian, weight, damp);
    if (dead > 0) {
        monitor.warn(fmt::format("{}: {} of {} input channels were never active in the calibration; their "
                                 "weights become zero in Q.",
                                 problem.name, dead, layer.hessian.rows()));
        layer.weight = backend.upload(weight);
    }
    return layer;
}

RoundedLayer round_to_nearest(const Buffer& weight, const UniformGrid& grid, Backend& backend,
                              Monitor& monitor)
{
    RoundedLayer layer;
    layer.grid = fit_grid(weight, grid, backend, monitor);
    layer.rounded = backend.round_nearest(weight, layer.grid);
    return layer;
}

Result<RoundedLayer> round_against_moments(const LayerProblem& problem, const UniformGrid& grid,
                                           const FeedbackOptions& options, Backend& backend, Monitor& monitor)
{
    const DampedLayer damped = damped_layer(problem, options.damp, backend, monitor);
    auto factor = FeedbackFactor::make(damped.hessian, options.act_order, backend, monitor);
    if (!factor)
        return factor.error().in(problem.name);
    RoundedLayer layer;
    layer.grid = fit_grid(damped.weight, grid, backend, monitor);
    layer.rounded = factor->round(damped.weight, layer.grid, backend, monitor);
    layer.rounded = tune_rounding(damped.weight, layer.rounded, damped.hessian, layer.grid,
                                  options.tune_passes, backend, monitor);
    return layer;
}

double quantization_scale(const GridBuffers& grid, double weight_rms, Backend& backend)
{
    return weight_rms > 0.0 ? backend.download(grid.scales).cast<double>().mean() / weight_rms : 0.0;
}

double root_mean_square(const Buffer& weight, Backend& backend)
{
    return weight.empty() ? 0.0 : std::sqrt(backend.dot(weight, weight) / static_cast<double>(weight.size()));
}

Decomposition decomposition_of(const LayerProblem& problem, const RoundedLayer& layer, Backend& backend)
{
    Decomposition result;
    result.quantized = to_host(layer.rounded, layer.grid, backend);
    result.low_rank.left = Matrix::Zero(problem.weight.rows(), 0);
    result.low_rank.right = Matrix::Zero(0, problem.weight.cols());
    result.quantization_scale =
        quantization_scale(layer.grid, root_mean_square(problem.weight, backend), backend);
    return result;
}

Result<Decomposition> finite_or_error(Decomposition decomposition, const LayerProblem& problem)
{
    const bool finite = decomposition.quantized.scales.allFinite() && decomposition.low_rank.left.allFinite()
                        && decomposition.low_rank.right.allFinite()
                        && std::isfinite(decomposition.quantization_scale);
    if (!finite)
        return bad_input("the decomposition left the range of 32-bit floating point", problem.name,
                         "Leave this layer out: its weights or moments are far too large.");
    return decomposition;
}

} // namespace rankscope
