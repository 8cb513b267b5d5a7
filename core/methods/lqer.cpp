// SPDX-License-Identifier: GPL-3.0-or-later
// LQER with activation scaling, L²QER in the paper (arXiv 2402.02446).
//
// Idea: of the error W − Q, correct first what meets large activations: the truncated singular
// value decomposition of (W − Q)·S with S = diag(a), a_j the mean |x_j| of input j.
//
// Equations (methods-learned §4.1, §4.2): U_r from E·S; L = U_r, R = U_rᵀ·E, which equals the
// published [E·S]_r·S⁻¹ without an inverse. a has a floor of 1e-4.
//
// What differs from the paper and why:
// - a is the mean over all calibration tokens, not the maximum over batches of the batch means:
//   that maximum depends on how the text was cut, and more text does not make it better (QERA,
//   figure 3).
// - The normalisation by √(min·max) is left out: it cancels in L·R.
// - Q is a uniform grid here; the release uses MXINT blocks of 16.
// - Balanced 16-bit factors instead of 8-bit MXINT ones.
#include "core/methods/lqer.h"

#include "core/methods/common_parameters.h"
#include "core/methods/residual_correction.h"

namespace rankscope {
namespace {

constexpr double k_floor = 1e-4; ///< of the mean activation, as in the release

class Lqer final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "lqer",
            "LQER",
            "Corrects the rounding error, each input weighted by its mean activation.",
            "Zhang et al. 2024 (L²QER), arXiv 2402.02446",
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
        if (problem.moments->mean_abs.size() != problem.weight.cols()
            || !problem.moments->mean_abs.allFinite())
            return bad_input("the calibration holds no usable mean activations for this layer", problem.name,
                             "Calibrate again.");
        CorrectionMetric metric;
        metric.scale = problem.moments->mean_abs.cwiseMax(k_floor);
        return correct_rounding(problem, parameters, metric, backend, monitor);
    }
};

} // namespace

const Method& lqer_method()
{
    static const Lqer method;
    return method;
}

} // namespace rankscope
