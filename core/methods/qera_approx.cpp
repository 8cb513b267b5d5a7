// SPDX-License-Identifier: GPL-3.0-or-later
// QERA-approx (arXiv 2410.06040).
//
// Idea: the correction of least output error if input channels were uncorrelated: the off-diagonal
// part of H = X·Xᵀ/N is left out, so that S = diag(√H_jj), the channels' root-mean-square
// activations.
//
// Equations (methods-learned §4.1): U_r = the leading left singular vectors of (W − Q)·S; L = U_r,
// R = U_rᵀ·(W − Q). It needs the diagonal of H only and comes close to qera_exact at 4 bits; the
// fewer the bits, the more the correlations that it leaves out matter (§4.2).
//
// What differs from the paper and why:
// - R = U_rᵀ·(W − Q) instead of [E·S]_r·S⁻¹: the same matrix without an inverse, so that a dead
//   channel (H_jj = 0) does no harm.
// - Q is a uniform grid here; the release uses MXINT blocks of 32.
// - Balanced factors.
#include "core/methods/qera_approx.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

class QeraApprox final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "qera_approx",
            "QERA-approx",
            "Corrects the rounding error, each input weighted by its root-mean-square activation.",
            "Zhang et al. 2024, arXiv 2410.06040",
            {.hessian = true},
            true,
            correction_parameters(),
            check_correction,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        CorrectionMetric metric;
        metric.scale = problem.moments->hessian.diagonal().cwiseMax(0.0).cwiseSqrt();
        return correct_rounding(problem, parameters, metric, backend, monitor);
    }
};

} // namespace

const Method& qera_approx_method()
{
    static const QeraApprox method;
    return method;
}

} // namespace rankscope
