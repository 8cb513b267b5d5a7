// SPDX-License-Identifier: GPL-3.0-or-later
// LoftQ (arXiv 2310.08659): alternation without calibration.
//
// Idea: start a quantized model for fine-tuning as near to the weight as Q + L·R can be: round what L·R
// leaves, take the best L·R of what rounding leaves, and so on.
//
// Equations (methods-learned §4.2): Q_t = round(W − L_{t−1}·R_{t−1}), L_t·R_t = [W − Q_t]_r, L₀·R₀ = 0. One
// iteration is `svd_residual`. Usual Q: NormalFloat levels, blocks of 64 weights with their largest magnitude
// as scale.
//
// What differs from the paper and why:
// - The best iterate is returned: the error of the weight falls in practice, but nothing proves it.
// - The last block of a row may be shorter; the release asks for whole blocks.
#include "core/methods/loftq.h"

#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"
#include "core/methods/residual_correction.h"

#include <cmath>
#include <limits>

namespace rankscope {
namespace {

std::vector<ParameterInfo> loftq_parameters()
{
    std::vector<ParameterInfo> parameters =
        grid_parameters(4)
        + std::vector{scalar_codebook_parameter(), rank_parameter(), iterations_parameter()};
    for (ParameterInfo& info : parameters) {
        if (info.name == "group")
            info.fallback = std::int64_t{64};
        else if (info.name == "codebook")
            info.fallback = std::string("nf");
        else if (info.name == "iterations")
            info.fallback = std::int64_t{5};
    }
    parameters.push_back(
        flag_parameter("keep_best", "Keep the best", true,
                       "Returns the iterate of least error of the weight; otherwise the last one."));
    return parameters;
}

IterationReport report_of(int step, double error, double weight_norm, double scale)
{
    IterationReport report;
    report.step = step;
    report.stage = "LR";
    report.relative_activation_error = weight_norm > 0.0 ? error / weight_norm : 0.0;
    report.quantization_scale = scale;
    return report;
}

Result<Decomposition> alternate(const LayerProblem& problem, const Parameters& parameters, Backend& backend,
                                Monitor& monitor)
{
    const UniformGrid grid = grid_of(parameters);
    const Index rank = parameters.integer("rank");
    const auto iterations = static_cast<int>(parameters.integer("iterations"));
    const double norm = std::sqrt(backend.dot(problem.weight, problem.weight));
    Decomposition best;
    std::vector<IterationReport> trace;
    double least = std::numeric_limits<double>::infinity();
    Buffer target = problem.weight;
    for (int step = 1; step <= iterations; ++step) {
        monitor.throw_if_cancelled();
        monitor.report(static_cast<std::uint64_t>(step - 1), static_cast<std::uint64_t>(iterations),
                       "refine");
        const RoundedLayer layer = round_to_nearest(target, grid, backend, monitor);
        Buffer error = backend.difference(problem.weight, layer.rounded.values);
        Decomposition made = decomposition_of(problem, layer, backend);
        if (rank > 0) {
            monitor.throw_if_cancelled();
            const LowRankBuffers factors = best_low_rank(error, {}, rank, backend);
            made.low_rank = balanced(factors, backend);
            target = backend.copy(problem.weight);
            backend.gemm(-1.0, factors.left, Transpose::No, factors.right, Transpose::No, 1.0, target);
            backend.gemm(-1.0, factors.left, Transpose::No, factors.right, Transpose::No, 1.0, error);
        }
        const double distance = std::sqrt(backend.dot(error, error));
        trace.push_back(report_of(step, distance, norm, made.quantization_scale));
        if (distance < least || !parameters.flag("keep_best")) {
            least = distance;
            best = std::move(made);
        }
        if (rank == 0) // nothing that Q could be fitted to changes
            break;
    }
    monitor.throw_if_cancelled();
    best.trace = std::move(trace);
    return finite_or_error(std::move(best), problem);
}

class LoftQ final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "loftq",
            "LoftQ",
            "Fits Q and L·R in turn to what the other leaves of the weight, without activations.",
            "Li et al. 2023, arXiv 2310.08659",
            {.hessian = false},
            true,
            loftq_parameters(),
            check_codebook,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        return alternate(problem, parameters, backend, monitor);
    }
};

} // namespace

const Method& loftq_method()
{
    static const LoftQ method;
    return method;
}

} // namespace rankscope
