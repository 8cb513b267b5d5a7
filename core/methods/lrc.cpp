// SPDX-License-Identifier: GPL-3.0-or-later
// LRC (arXiv 2412.07902): a low-rank correction of quantized weights and activations.
//
// Idea: where activations are rounded too, y = Q_a(x), part of W·x is out of every Ŵ's reach, as y does not
// tell it. A low-rank path that reads the unrounded x can bring it back: the layer computes
// Ŵ·Q_a(x) + U·(Vᵀ·x).
//
// Equations (methods-joint §6.1, §6.2), with the moments Σ_x, Σ_y (each + ρ·mean(diag)·I) and Σ_xy:
// - minimize ‖W·X − Ŵ·Y − U·Vᵀ·X‖² over Ŵ on a grid, U and V of rank r.
// - Start, Ŵ relaxed to real numbers: U = the leading eigenvectors of W·(Σ_x − Σ_xy·Σ_y⁻¹·Σ_xyᵀ)·Wᵀ,
//   V = Wᵀ·U.
// - Ŵ step: GPTQ with the Hessian Σ_y on the moved target (W − U·Vᵀ)·Σ_xy·Σ_y⁻¹, on a grid fitted to it.
// - UV step: with M = W − Ŵ·Σ_xyᵀ·Σ_x⁻¹, U = the leading eigenvectors of M·Σ_x·Mᵀ, V = Mᵀ·U.
// No UV step raises the objective; a Ŵ step may, so the best pair of all iterations is returned.
//
// What differs from the paper and why:
// - Large layers take U from a subspace iteration, started from random columns and then from the U before,
//   with `solver` exact from all eigenvectors: the start need not be exact, and the objective still falls.
// - Without quantized activations (activation_bits 16) the relaxed problem has no solution of its own, as the
//   matrix of the start is damping alone: U = V = 0 then.
// - `tune_passes` of coordinate descent on the best Ŵ at the end, and U and V fitted to it once more.
#include "core/methods/lrc.h"

#include "core/methods/common_parameters.h"
#include "core/methods/lrc_loop.h"

namespace rankscope {
namespace {

std::vector<ParameterInfo> lrc_grid_parameters()
{
    std::vector<ParameterInfo> parameters = grid_parameters(4);
    for (ParameterInfo& parameter : parameters) {
        if (parameter.name == "group")
            parameter.fallback = std::int64_t{0};
        else if (parameter.name == "symmetric")
            parameter.fallback = true;
        else if (parameter.name == "sym_rule")
            parameter.fallback = std::string("restricted");
        else if (parameter.name == "clip_search")
            parameter.fallback = std::string("shrink");
    }
    return parameters;
}

std::vector<ParameterInfo> lrc_parameters()
{
    ParameterInfo iterations = iterations_parameter();
    iterations.fallback = std::int64_t{1};
    ParameterInfo act_order = act_order_parameter();
    act_order.fallback = false;
    ParameterInfo tune_passes = tune_passes_parameter();
    tune_passes.fallback = std::int64_t{0};
    return lrc_grid_parameters() + std::vector{rank_parameter()} + activation_parameters(0.9)
           + std::vector{choice_parameter("quantizer", "Rounding", {"gptq", "rtn"},
                                          "How Q is rounded: by GPTQ with feedback, or each weight to its "
                                          "nearest step."),
                         choice_parameter("start", "Start", {"relaxed", "zero"},
                                          "U and V before the first Q: those of a Q that may be any matrix, "
                                          "or none."),
                         choice_parameter("solver", "Solver", {"auto", "exact"},
                                          "How U is found: auto takes a subspace iteration for layers of "
                                          "many outputs, exact always all eigenvectors."),
                         std::move(iterations),
                         damp_parameter(),
                         std::move(act_order),
                         std::move(tune_passes)};
}

/// Y = X where activations are not rounded.
LrcMoments lrc_moments(const Moments& given, const ActivationQuantization& activations)
{
    if (!activations.active())
        return {given.hessian, given.hessian, given.hessian};
    return {given.hessian, given.sigma_xy, given.sigma_yy};
}

class Lrc final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "lrc",
            "LRC",
            "Rounds weights and activations, and corrects both by a low-rank path that reads the activations "
            "unrounded.",
            "Scetbon and Hensman 2024, arXiv 2412.07902",
            {.hessian = true, .quantized_activations = true},
            true,
            lrc_parameters(),
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        LrcOptions options;
        options.grid = grid_of(parameters);
        options.activations = activations_of(info(), parameters);
        options.feedback = parameters.text("quantizer") == "gptq";
        options.act_order = parameters.flag("act_order");
        options.relaxed_start = options.activations.active() && parameters.text("start") == "relaxed";
        options.exact = parameters.text("solver") == "exact";
        options.damp = parameters.real("damp");
        options.rank = parameters.integer("rank");
        options.iterations = static_cast<int>(parameters.integer("iterations"));
        options.tune_passes = static_cast<int>(parameters.integer("tune_passes"));
        return correct_activations(problem, lrc_moments(*problem.moments, options.activations), options,
                                   backend, monitor);
    }
};

} // namespace

const Method& lrc_method()
{
    static const Lrc method;
    return method;
}

} // namespace rankscope
