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
#include "core/methods/plain_alternation.h"

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
        AlternationOptions options;
        options.grid = grid_of(parameters);
        options.rank = parameters.integer("rank");
        options.iterations = static_cast<int>(parameters.integer("iterations"));
        options.keep_best = parameters.flag("keep_best");
        return alternate(problem, options, backend, monitor);
    }
};

} // namespace

const Method& loftq_method()
{
    static const LoftQ method;
    return method;
}

} // namespace rankscope
