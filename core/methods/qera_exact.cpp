// SPDX-License-Identifier: GPL-3.0-or-later
// QERA-exact (arXiv 2410.06040).
//
// Idea: for a fixed Q, the rank-r L·R of least output error ‖(W − Q − L·R)·X‖ has a closed form in
// the second moment H of the inputs.
//
// Equations (methods-learned §4.1): U_r = the leading left singular vectors of E·S with S·Sᵀ = H,
// that is the leading eigenvectors of E·H·Eᵀ, E = W − Q; L = U_r, R = U_rᵀ·E; what is left is
// Σ_{i>r} σ_i²(E·S).
//
// What differs from the paper and why:
// - The release takes a matrix square root of H, and solves with it to undo it. E·H·Eᵀ needs
//   neither, and a singular H (fewer tokens than channels) is harmless: no ridge, no inverse, and
//   ‖L·R‖ ≤ ‖E‖.
// - H is not damped: nothing is inverted here. With rounding = gptq the rounding alone sees the
//   damped H.
// - Q is a uniform grid here; the release uses MXINT blocks of 32.
// - Balanced factors.
#include "core/methods/qera_exact.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

class QeraExact final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "qera_exact",
            "QERA-exact",
            "Adds the low-rank correction of least output error for a given rounding.",
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
        metric.hessian = &problem.moments->hessian;
        return correct_rounding(problem, parameters, metric, backend, monitor);
    }
};

} // namespace

const Method& qera_exact_method()
{
    static const QeraExact method;
    return method;
}

} // namespace rankscope
