// SPDX-License-Identifier: GPL-3.0-or-later
// SVD-LLM (arXiv 2403.07378): rank-only compression, whitened by the inputs' second moments.
//
// Idea: the weight itself is replaced by L·R, without a Q. Truncating the singular values of W·S with S·Sᵀ =
// H loses exactly as much output as their squares say, which those of W do not.
//
// Equations (methods-learned §4.1): U_r = the leading left singular vectors of W·H^½; L = U_r, R = U_rᵀ·W.
//
// What differs from the paper and why:
// - R = U_rᵀ·W instead of [W·S]_r·S⁻¹ with a Cholesky factor S: the same matrix without an inverse, so that a
// singular
//   H needs no ridge.
// - A rank instead of a ratio: the kept share ρ of the weight's size is the rank ρ·m·n/(m + n); `plan
// --budget` finds
//   one for each layer. Without the fine-tuning that the paper adds.
#include "core/methods/svd_llm.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

class SvdLlm final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "svd_llm",
            "SVD-LLM",
            "Replaces the weight by its low-rank part of least output error; nothing is rounded.",
            "Wang et al. 2024, arXiv 2403.07378",
            {.hessian = true},
            true,
            {rank_parameter()},
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        CorrectionMetric metric;
        metric.hessian = &problem.moments->hessian;
        return truncate_weight(problem, parameters, metric, backend, monitor);
    }
};

} // namespace

const Method& svd_llm_method()
{
    static const SvdLlm method;
    return method;
}

} // namespace rankscope
