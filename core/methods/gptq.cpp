// SPDX-License-Identifier: GPL-3.0-or-later
// GPTQ (arXiv 2210.17323), computed as LDLQ (QuIP, arXiv 2307.13304), which is the same thing.
//
// Idea: round column after column and let the columns still open make up for the error made so
// far, in the metric of the inputs' second moment H = X·Xᵀ/N, so that ‖(W − Q)·H^½‖ is small
// rather than ‖W − Q‖.
//
// Equations (methods-joint §2.1, §2.2): H damped by ρ·mean(diag H); H = U·D·Uᵀ with U unit upper
// triangular; Q_k = round(W_k + Σ_{j<k} (W − Q)_j·U_jk). Then tr((W−Q)·H·(W−Q)ᵀ) = Σ_k D_k·‖e_k‖²,
// e_k the rounding errors.
//
// What differs from the paper and why:
// - The paper updates with the Cholesky factor of H⁻¹; U needs no inverse, is better conditioned,
//   and gives the same codes in the same column order.
// - Scales are fixed from the unrounded weight before the sweep (static groups), not refitted when
//   a group is entered: with activation order a group's columns are not visited together.
// - Activation order is on by default: with outlier channels it lowers the error by a fifth and
//   more.
// - Afterwards `tune_passes` of coordinate descent (§2.3), as in QuIP#'s release; none can raise
//   the error.
// - With `codebook` e8p blocks of eight columns are rounded to the E8P lattice (QuIP#, arXiv
//   2402.04396), U block unit upper triangular; `rht` first spreads outliers over all channels.
#include "core/methods/gptq.h"

#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"

namespace rankscope {
namespace {

class Gptq final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "gptq",
            "GPTQ",
            "Rounds column by column and lets later columns make up for the error, weighted by the "
            "activations.",
            "Frantar et al. 2022, arXiv 2210.17323; QuIP, arXiv 2307.13304",
            {.hessian = true},
            false,
            grid_parameters(4) + codebook_parameters()
                + std::vector{damp_parameter(), act_order_parameter(), tune_passes_parameter()},
            check_codebook,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        const FeedbackOptions options{parameters.real("damp"), parameters.flag("act_order"),
                                      static_cast<int>(parameters.integer("tune_passes")),
                                      codebook_of(parameters), rotates(parameters)};
        auto layer = round_against_moments(problem, grid_of(parameters), options, backend, monitor);
        if (!layer)
            return layer.error();
        return finite_or_error(decomposition_of(problem, *layer, backend), problem);
    }
};

} // namespace

const Method& gptq_method()
{
    static const Gptq method;
    return method;
}

} // namespace rankscope
