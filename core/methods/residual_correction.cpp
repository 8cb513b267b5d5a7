// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/residual_correction.h"

#include "core/linalg/weighted_low_rank.h"
#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"
#include "core/methods/learned_method.h"

namespace rankscope {
namespace {

bool learns(const Parameters& parameters)
{
    return parameters.text("rounding") == "lrq" || parameters.text("rounding") == "flexround";
}

RoundedLayer learned_layer(LearnedLinear linear, Backend& backend)
{
    const QuantizedMatrix quantized = linear.quantized(backend);
    RoundedLayer layer;
    layer.grid = {quantized.grid, backend.upload(quantized.scales), backend.upload(quantized.zeros)};
    layer.rounded.values = backend.upload(quantized.dequantize());
    layer.rounded.codes = backend.upload(Matrix(quantized.codes.cast<float>()));
    return layer;
}

Result<RoundedLayer> rounded_by_choice(const LayerProblem& problem, const Parameters& parameters,
                                       Backend& backend, Monitor& monitor)
{
    const UniformGrid grid = grid_of(parameters);
    if (parameters.text("rounding") == "nearest")
        return round_to_nearest(problem.weight, grid, backend, monitor);
    if (auto checked = check_moments(problem); !checked)
        return checked.error();
    if (learns(parameters))
        return learned_layer(learned_from_moments(problem, parameters,
                                                  parameters.text("rounding") == "lrq"
                                                      ? LearnedKind::Lrq
                                                      : LearnedKind::FlexRound,
                                                  backend, monitor),
                             backend);
    const FeedbackOptions options{parameters.real("damp"), parameters.flag("act_order"),
                                  static_cast<int>(parameters.integer("tune_passes"))};
    return round_against_moments(problem, grid, options, backend, monitor);
}

} // namespace

LowRankBuffers best_low_rank(const Buffer& target, const CorrectionMetric& metric, Index rank,
                             Backend& backend)
{
    if (metric.scale.size() == 0)
        return weighted_low_rank(target, metric.hessian ? backend.upload(*metric.hessian) : Buffer{}, rank,
                                 backend);
    // The left space of E·S is all that is taken from the scaled error, so that S need not be inverted.
    Buffer scaled = backend.copy(target);
    backend.scale_columns(scaled, metric.scale);
    LowRankBuffers result = weighted_low_rank(scaled, {}, rank, backend);
    result.right = backend.multiply(result.left, Transpose::Yes, target, Transpose::No);
    return result;
}

LowRank balanced(const LowRankBuffers& factors, Backend& backend)
{
    LowRank result{backend.download(factors.left), backend.download(factors.right)};
    balance(result.left, result.right);
    return result;
}

std::vector<ParameterInfo> correction_parameters()
{
    return grid_parameters(4)
           + std::vector{scalar_codebook_parameter(),
                         rank_parameter(),
                         choice_parameter("rounding", "Rounding", {"nearest", "gptq", "lrq", "flexround"},
                                          "How Q is rounded: each weight to its nearest step, by GPTQ with "
                                          "feedback, or as LRQ or "
                                          "FlexRound learn it from the moments."),
                         damp_parameter(),
                         act_order_parameter(),
                         tune_passes_parameter()}
           + descent_parameters();
}

Status check_correction(const Parameters& parameters)
{
    if (learns(parameters) && parameters.text("codebook") != "uniform")
        return usage_error("learned roundings go to steps of a uniform grid", {},
                           "Choose codebook=uniform, or rounding nearest or gptq");
    if (learns(parameters) && parameters.integer("group") < 0)
        return usage_error("one scale for a whole matrix cannot be learned", {},
                           "Choose group=0, one scale an output, or more");
    return check_codebook(parameters);
}

Result<Decomposition> correct_rounding(const LayerProblem& problem, const Parameters& parameters,
                                       const CorrectionMetric& metric, Backend& backend, Monitor& monitor)
{
    monitor.report(0, 2, "Q");
    auto layer = rounded_by_choice(problem, parameters, backend, monitor);
    if (!layer)
        return layer.error();
    Decomposition result = decomposition_of(problem, *layer, backend);
    monitor.report(1, 2, "LR");
    monitor.throw_if_cancelled();
    const Index rank = parameters.integer("rank");
    if (rank > 0)
        result.low_rank = balanced(
            best_low_rank(backend.difference(problem.weight, layer->rounded.values), metric, rank, backend),
            backend);
    monitor.report(2, 2, "LR");
    return finite_or_error(std::move(result), problem);
}

Result<Decomposition> truncate_weight(const LayerProblem& problem, const Parameters& parameters,
                                      const CorrectionMetric& metric, Backend& backend, Monitor& monitor)
{
    monitor.report(0, 1, "LR");
    monitor.throw_if_cancelled();
    Decomposition result;
    result.low_rank.left = Matrix::Zero(problem.weight.rows(), 0);
    result.low_rank.right = Matrix::Zero(0, problem.weight.cols());
    if (const Index rank = parameters.integer("rank"); rank > 0)
        result.low_rank = balanced(best_low_rank(problem.weight, metric, rank, backend), backend);
    monitor.throw_if_cancelled();
    monitor.report(1, 1, "LR");
    return finite_or_error(std::move(result), problem);
}

} // namespace rankscope
