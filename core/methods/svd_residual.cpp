// SPDX-License-Identifier: GPL-3.0-or-later
// Residual SVD, also known as LoRC (ZeroQuant-V2, arXiv 2303.08302).
//
// Idea: round first, then let L·R carry as much of the rounding error as rank r can: L·R = [W −
// Q]_r, the truncated singular value decomposition. The least ‖W − Q − L·R‖_F for that Q; no
// calibration.
//
// Equation (methods-learned §4.1 with S = I): U_r = the leading left singular vectors of E = W −
// Q; L = U_r, R = U_rᵀ·E; what is left is Σ_{i>r} σ_i²(E). Rounding errors have a flat spectrum,
// so that rank r takes little more than its share of their plain energy: compare the weighted
// methods (lqer, qera_approx, qera_exact), which differ in S alone.
//
// What differs from the paper and why:
// - The factors are balanced (equal norms on both sides) instead of L = U·Σ: best for storing in
//   16 bits.
// - They are kept in 16 bits, not 8.
// - `rounding` offers GPTQ's Q beside the nearest one; it is still the plain norm that is made
//   least.
#include "core/methods/svd_residual.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

class SvdResidual final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "svd_residual",
            "Residual SVD",
            "Rounds the weight, then adds the best low-rank correction of the rounding error.",
            "ZeroQuant-V2 (LoRC), arXiv 2303.08302",
            {.hessian = false},
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
        return correct_rounding(problem, parameters, {}, backend, monitor);
    }
};

} // namespace

const Method& svd_residual_method()
{
    static const SvdResidual method;
    return method;
}

} // namespace rankscope
