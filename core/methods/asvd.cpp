// SPDX-License-Identifier: GPL-3.0-or-later
// ASVD (arXiv 2312.05821): rank-only compression, inputs weighted by their activations.
//
// Idea: the weight itself is replaced by L·R, without a Q. Input channels with large activations count for
// more: S = diag(a^α + 1e-6) with a = mean|x_j| and α = 0.5.
//
// Equations (methods-learned §4.1): U_r = the leading left singular vectors of W·S; L = U_r, R = U_rᵀ·W.
// `svd_llm` does the same in the metric that the output error has; α = 0 is the plain SVD.
//
// What differs from the paper and why:
// - R = U_rᵀ·W instead of [W·S]_r·S⁻¹: the same matrix without an inverse.
// - The exact decomposition and means over all tokens; the release has a randomized one and sums of batch
// means.
// - A rank instead of a ratio: the kept share ρ of the weight's size is the rank ρ·m·n/(m + n).
#include "core/methods/asvd.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

class Asvd final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "asvd",
            "ASVD",
            "Replaces the weight by its low-rank part, each input weighted by a power of its mean "
            "activation.",
            "Yuan et al. 2023, arXiv 2312.05821",
            {.hessian = true},
            true,
            {rank_parameter(),
             {"alpha",
              "Exponent",
              ParameterType::Real,
              0.5,
              0.0,
              1.0,
              {},
              "",
              "Power of the mean absolute activation that weighs an input; 0: plain SVD."}},
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        CorrectionMetric metric;
        metric.scale = (problem.moments->mean_abs.array().pow(parameters.real("alpha")) + 1e-6).matrix();
        return truncate_weight(problem, parameters, metric, backend, monitor);
    }
};

} // namespace

const Method& asvd_method()
{
    static const Asvd method;
    return method;
}

} // namespace rankscope
