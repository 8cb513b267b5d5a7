// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/layer_rounding.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope {

DampedLayer damped_layer(const LayerProblem& problem, double damp, Backend& backend, Monitor& monitor)
{
    monitor.throw_if_cancelled();
    DampedLayer layer{problem.weight, problem.moments->hessian, {}};
    const auto tokens = problem.moments->tokens; // 0: whoever made the moments did not say
    if (tokens > 0 && tokens < static_cast<std::uint64_t>(layer.hessian.rows()))
        monitor.warn(
            fmt::format("Calibrated with {} tokens for {} input channels: the moments are singular, and "
                        "what is fitted to them may not hold for other text.",
                        tokens, layer.hessian.rows()));
    // Only the weights of dead channels change: without one they stay where they are.
    const bool any_dead = (layer.hessian.diagonal().array() == 0.0).any();
    Matrix weight = any_dead ? backend.download(problem.weight) : Matrix();
    const Index dead = prepare_hessian(layer.hessian, weight, damp);
    if (dead > 0) {
        monitor.warn(
            fmt::format("{} of {} input channels were never active in the calibration; their weights "
                        "count as zero.",
                        dead, layer.hessian.rows()));
        layer.weight = backend.upload(weight);
    }
    return layer;
}

DampedLayer rotated_layer(const LayerProblem& problem, DampedLayer layer, Backend& backend)
{
    layer.transform = problem.transform ? *problem.transform
                                        : Incoherence::random(layer.weight.rows(), layer.weight.cols(),
                                                              problem.seed, problem.name);
    layer.weight = layer.transform.weight(layer.weight, backend);
    layer.hessian = layer.transform.hessian(layer.hessian, backend);
    return layer;
}

Result<LayerQuantizer> LayerQuantizer::make(const MatrixD& hessian, const QuantizerOptions& options,
                                            Backend& backend, Monitor& monitor)
{
    LayerQuantizer result;
    result.options_ = options;
    if (options.codebook == Codebook::E8P) {
        auto lattice = LatticeFeedback::make(hessian, options.act_order, backend, monitor);
        if (!lattice)
            return lattice.error();
        result.lattice_ = std::move(*lattice);
        return result;
    }
    auto scalar = FeedbackFactor::make(hessian, options.act_order, backend, monitor);
    if (!scalar)
        return scalar.error();
    result.scalar_ = std::move(*scalar);
    return result;
}

RoundedLayer LayerQuantizer::round(const Buffer& target, Backend& backend, Monitor& monitor) const
{
    RoundedLayer layer;
    layer.bits = options_.grid.bits;
    if (lattice_) {
        layer.lattice = lattice_->round(target, layer.bits, backend, monitor);
        layer.rounded.values = layer.lattice->rounded.values;
        if (!lattice_->damped_further())
            layer.loss = layer.lattice->rounded.loss;
        return layer;
    }
    layer.grid = fit_grid(target, options_.grid, backend, monitor);
    layer.rounded = scalar_->round(target, layer.grid, backend, monitor);
    const VectorD& losses = layer.rounded.column_losses;
    if (!scalar_->damped_further() && losses.size() == scalar_->diagonal().size())
        layer.loss = losses.dot(scalar_->diagonal());
    return layer;
}

RoundedLayer tuned(const Buffer& target, const RoundedLayer& layer, const Buffer& hessian, int passes,
                   Backend& backend, Monitor& monitor)
{
    RoundedLayer result = layer;
    if (passes <= 0)
        return result;
    result.loss = -1.0;
    if (layer.lattice) {
        result.lattice = tune_lattice(target, *layer.lattice, hessian, passes, backend, monitor);
        result.rounded.values = result.lattice->rounded.values;
        return result;
    }
    result.rounded = tune_rounding(target, layer.rounded, hessian, layer.grid, passes, backend, monitor);
    return result;
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
    DampedLayer damped = damped_layer(problem, options.damp, backend, monitor);
    if (options.rotate)
        damped = rotated_layer(problem, std::move(damped), backend);
    const auto quantizer =
        LayerQuantizer::make(damped.hessian, {options.codebook, grid, options.act_order}, backend, monitor);
    if (!quantizer)
        return quantizer.error().in(problem.name);
    RoundedLayer layer = tuned(damped.weight, quantizer->round(damped.weight, backend, monitor),
                               options.tune_passes > 0 ? backend.upload(damped.hessian) : Buffer(),
                               options.tune_passes, backend, monitor);
    layer.transform = damped.transform;
    return layer;
}

namespace {

double mean_step(const GridBuffers& grid, Backend& backend)
{
    if (const Matrix* scales = backend.host_matrix(grid.scales))
        return scales->cast<double>().cwiseAbs().mean();
    if (grid.grid.levels == GridLevels::Kquant) // may be negative
        return backend.download(grid.scales).cast<double>().cwiseAbs().mean();
    const Buffer ones = backend.upload(Matrix(Matrix::Ones(grid.scales.cols(), 1)));
    const Matrix sums = backend.download(backend.multiply(grid.scales, ones)); // a number a row comes over
    return sums.cast<double>().sum() / static_cast<double>(grid.scales.size());
}

} // namespace

double quantization_scale(const RoundedLayer& layer, double weight_rms, Backend& backend)
{
    if (!(weight_rms > 0.0))
        return 0.0;
    const double step = layer.lattice ? static_cast<double>(layer.lattice->scale) : mean_step(layer.grid, backend);
    return step / weight_rms;
}

double root_mean_square(const Buffer& weight, Backend& backend)
{
    return weight.empty() ? 0.0 : std::sqrt(backend.dot(weight, weight) / static_cast<double>(weight.size()));
}

Decomposition decomposition_of(const LayerProblem& problem, const RoundedLayer& layer, Backend& backend)
{
    Decomposition result;
    result.quantized = layer.lattice ? to_quantized(*layer.lattice, backend)
                                     : to_host(layer.rounded, layer.grid, backend);
    result.transform = layer.transform;
    result.low_rank.left = Matrix::Zero(problem.weight.rows(), 0);
    result.low_rank.right = Matrix::Zero(0, problem.weight.cols());
    result.quantization_scale = quantization_scale(layer, root_mean_square(problem.weight, backend), backend);
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
