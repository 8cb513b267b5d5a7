// SPDX-License-Identifier: GPL-3.0-or-later
// SVDQuant (arXiv 2411.05007): a low-rank branch takes what makes weights and activations hard to round.
//
// Idea: smoothing moves the outliers of activations into the weights, where a branch of low rank in 16 bits
// absorbs them; what is left, weights and activations, bears 4 bits: y = Q·Q_a(x) + L·(R·x).
//
// Equations (methods-learned §4.2): L·R = [W − Q]_r with Q = 0 at first, Q = round(W − L·R), in turn until
// the error of the output rises; the best pair is returned. Q_a rounds each token (as LRC's), the branch
// reads x itself.
//
// What differs from the paper and why:
// - The smoothing is not a part of this method but of the checkpoint: `rankscope-cli smooth` folds it into
// the norms
//   first, exactly, so that nothing has to be divided while the model runs. What reads no norm (o, down) is
//   not smoothed. The paper's search for one layer's exponents on a sample of its inputs is svdquant() in
//   smoothing.h.
// - The output error is that of the moments, tr(E·H·Eᵀ): the rounding of activations does not depend on L·R.
// - A token has one step, not one for each 64 channels.
#include "core/methods/svdquant.h"

#include "core/methods/common_parameters.h"
#include "core/methods/plain_alternation.h"

namespace rankscope {
namespace {

std::vector<ParameterInfo> svdquant_parameters()
{
    std::vector<ParameterInfo> parameters =
        grid_parameters(4) + std::vector{scalar_codebook_parameter(), rank_parameter()}
        + activation_parameters(1.0) + std::vector{iterations_parameter()};
    for (ParameterInfo& info : parameters) {
        if (info.name == "group")
            info.fallback = std::int64_t{64};
        else if (info.name == "symmetric")
            info.fallback = true;
        else if (info.name == "rank")
            info.fallback = std::int64_t{32};
        else if (info.name == "iterations")
            info.fallback = std::int64_t{100};
    }
    return parameters;
}

class SvdQuant final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "svdquant",
            "SVDQuant",
            "Lets a low-rank branch absorb what is hard to round; activations are rounded too. Meant for "
            "smoothed "
            "checkpoints.",
            "Li et al. 2024, arXiv 2411.05007",
            {.hessian = true},
            true,
            svdquant_parameters(),
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
        options.low_rank_first = true;
        options.stop_when_rising = true;
        options.hessian = &problem.moments->hessian;
        auto result = alternate(problem, options, backend, monitor);
        if (result)
            result->activations = activations_of(info(), parameters);
        return result;
    }
};

} // namespace

const Method& svdquant_method()
{
    static const SvdQuant method;
    return method;
}

} // namespace rankscope
