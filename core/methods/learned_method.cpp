// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/learned_method.h"

#include "core/linalg/weighted_low_rank.h"
#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"

#include <cmath>

namespace rankscope {
namespace {

ParameterInfo integer_parameter(std::string name, std::string title, std::int64_t fallback, double least,
                                double most, std::string help)
{
    ParameterInfo info;
    info.name = std::move(name);
    info.title = std::move(title);
    info.type = ParameterType::Integer;
    info.fallback = fallback;
    info.minimum = least;
    info.maximum = most;
    info.help = std::move(help);
    return info;
}

constexpr double k_layer_rate = 5e-3; ///< objective layer: 5e-4 leaves LRQ behind GPTQ after 500 steps
constexpr double k_block_rate = 5e-4;

ParameterInfo learning_rate_parameter()
{
    ParameterInfo info;
    info.name = "learning_rate";
    info.title = "Learning rate";
    info.type = ParameterType::Real;
    info.fallback = 0.0;
    info.minimum = 0.0;
    info.maximum = 1.0;
    info.help =
        "Adam's first step size; falls to 0 along half a cosine. One that diverges is halved. 0: 0.005 "
        "for a layer by its moments, 0.0005 for a block, as the release.";
    return info;
}

/// `rate` where none is given.
ReconstructionOptions descent_options(const Parameters& parameters, double rate)
{
    ReconstructionOptions options;
    options.steps = parameters.integer("steps");
    const double given = parameters.real("learning_rate");
    options.learning_rate = given > 0.0 ? given : rate;
    return options;
}

ParameterInfo learned_rank_parameter()
{
    return integer_parameter(
        "learned_rank", "Rank of the scalings", 0, 0, 1 << 20,
        "Rank of the learned exponents; nothing of it is stored. 0: a quarter of the smaller "
        "side, 1024 at most (2048 from 8192 on).");
}

ParameterInfo steps_parameter()
{
    return integer_parameter("steps", "Steps", 1000, 1, 1000000,
                             "Steps of gradient descent; the release takes 5000.");
}

} // namespace

std::vector<ParameterInfo> learned_parameters(LearnedKind kind)
{
    std::vector<ParameterInfo> parameters = grid_parameters(4);
    for (ParameterInfo& info : parameters)
        if (info.name == "group") {
            info.fallback = std::int64_t{0};
            info.minimum = 0.0; // one scale for the whole matrix has no row to be learned with
            info.help = "Consecutive inputs that share a scale; 0: one scale per output.";
        }
    if (kind == LearnedKind::Lrq)
        parameters.push_back(learned_rank_parameter());
    parameters.push_back(choice_parameter(
        "objective", "Objective", {"layer", "block"},
        "What the rounding is learned from: each layer's output by its moments alone (layer), or the whole "
        "block's "
        "output on text, with the inputs that the compressed blocks before it give (block)."));
    parameters.push_back(
        choice_parameter("simulate", "Simulated activations", {"none", "a8kv8", "a8kv8-static"},
                         "With objective block, what is rounded while it learns: inputs of linears, keys and "
                         "values to 8 bits a "
                         "token (a8kv8), or the inputs with one fixed range a tensor (a8kv8-static)."));
    parameters.push_back(steps_parameter());
    parameters.push_back(learning_rate_parameter());
    parameters.push_back(
        integer_parameter("batch", "Batch", 2, 1, 4096, "Sequences of a step, with objective block."));
    return parameters;
}

std::vector<ParameterInfo> descent_parameters()
{
    std::vector<ParameterInfo> parameters{learned_rank_parameter(), steps_parameter(),
                                          learning_rate_parameter()};
    parameters[0].help = "With rounding lrq: " + parameters[0].help;
    parameters[1].help = "With rounding lrq or flexround: " + parameters[1].help;
    parameters[2].help = "With rounding lrq or flexround: " + parameters[2].help;
    return parameters;
}

Status check_learned(const Parameters& parameters)
{
    if (parameters.text("objective") == "layer" && parameters.text("simulate") != "none")
        return usage_error("activations are simulated with objective=block only: moments do not hold them",
                           {}, "Choose objective=block, or simulate=none");
    return {};
}

ReconstructionOptions reconstruction_options(const Parameters& parameters, std::uint64_t seed)
{
    const bool block = parameters.text("objective") == "block";
    ReconstructionOptions options = descent_options(parameters, block ? k_block_rate : k_layer_rate);
    options.batch = parameters.integer("batch");
    options.seed = seed;
    return options;
}

LearnedLinear learned_linear(const Buffer& weight, const std::string& name, const Parameters& parameters,
                             LearnedKind kind, std::uint64_t seed, Backend& backend, Monitor& monitor)
{
    const UniformGrid grid = grid_of(parameters);
    Index rank = 0;
    if (kind == LearnedKind::Lrq) {
        const Index most = std::min(weight.rows(), weight.cols());
        const Index given = parameters.integer("learned_rank");
        rank = std::min(given > 0 ? given : default_learned_rank(weight.rows(), weight.cols()), most);
    }
    return LearnedLinear(weight, fit_grid(weight, grid, backend, monitor), kind, rank,
                         RandomStream(seed, name + " U2"), backend);
}

Decomposition decomposition_of(QuantizedMatrix quantized, const Matrix& weight)
{
    Decomposition result;
    const double rms = weight.size() > 0
                           ? weight.cast<double>().norm() / std::sqrt(static_cast<double>(weight.size()))
                           : 0.0;
    if (rms > 0.0)
        result.quantization_scale = quantized.scales.cast<double>().mean() / rms;
    result.low_rank.left = Matrix::Zero(weight.rows(), 0);
    result.low_rank.right = Matrix::Zero(0, weight.cols());
    result.quantized = std::move(quantized);
    return result;
}

LearnedLinear learned_from_moments(const LayerProblem& problem, const Parameters& parameters,
                                   LearnedKind kind, Backend& backend, Monitor& monitor)
{
    const ReconstructionOptions options = descent_options(parameters, k_layer_rate);
    LearnedLinear linear =
        learned_linear(problem.weight, problem.name, parameters, kind, problem.seed, backend, monitor);
    const LayerLoss loss{backend.upload(Matrix(problem.moments->hessian.cast<float>())), {}, 0.0};
    static_cast<void>(reconstruct_layer(linear, loss, options, backend, monitor));
    return linear;
}

Result<Decomposition> reconstruct_from_moments(const LayerProblem& problem, const MethodInfo& info,
                                               const Parameters& parameters, LearnedKind kind,
                                               Backend& backend, Monitor& monitor)
{
    if (auto checked = check_problem(problem, info, parameters, backend); !checked)
        return checked.error();
    if (parameters.text("objective") == "block")
        return usage_error(
            "the output of a whole block is learned from text, which one layer alone does not have",
            problem.name, "Choose objective=layer, or compress the model with --text.");
    monitor.throw_if_cancelled();
    LearnedLinear linear =
        learned_linear(problem.weight, problem.name, parameters, kind, problem.seed, backend, monitor);
    const LayerLoss loss{backend.upload(Matrix(problem.moments->hessian.cast<float>())), {}, 0.0};
    const ReconstructionReport report =
        reconstruct_layer(linear, loss, reconstruction_options(parameters, problem.seed), backend, monitor);
    Decomposition result = decomposition_of(linear.quantized(backend), backend.download(problem.weight));
    const double whole =
        weighted_squared_norm(problem.weight, backend.upload(problem.moments->hessian), backend);
    for (const LossPoint& point : report.curve) {
        IterationReport step;
        step.step = static_cast<int>(point.step);
        step.stage = point.step == 0 ? "start" : "Q";
        step.relative_activation_error = whole > 0.0
                                             ? std::sqrt(std::max(0.0, point.training)
                                                         * static_cast<double>(problem.weight.rows()) / whole)
                                             : 0.0;
        step.quantization_scale = result.quantization_scale;
        result.trace.push_back(std::move(step));
    }
    return finite_or_error(std::move(result), problem);
}

} // namespace rankscope
