// SPDX-License-Identifier: GPL-3.0-or-later
// CALDERA (arXiv 2405.18886): W ≈ Q + L·R by alternation.
//
// Idea: Q and L·R are fitted to each other's remainder in turn, both against the inputs' second
// moment H, so that L·R takes what the grid cannot hold and Q what rank r cannot.
//
// Equations (methods-joint §4.1, §4.2), H damped by ρ·mean(diag H):
// - Q step: A = W − L·R; the grid is fitted to A, then Q = LDLQ(A, H) (§2.2).
// - LR step: A = W − Q; L = the top r eigenvectors of A·H·Aᵀ, R = Lᵀ·A, the exact minimiser of the
//   weighted error.
// After each half-step e = ‖(W − Q − L·R)·H^½‖ / ‖W·H^½‖. No LR step raises e; a Q step may, as
// its scales are new and LDLQ is greedy. Hence the best iterate of all half-steps is returned, not
// the last.
//
// What differs from the paper and why:
// - Uniform grids and 16-bit factors unless asked otherwise: `codebook` e8p with `rht` is the
//   release's lattice behind a randomised Hadamard transform, `factor_bits` 4 its quantized
//   factors (LPLR, §4.4), `hessian_downdate` its rounding against what L cannot repair (§4.3).
// - LDLQ goes from the first column to the last (block) with an upper factor; the release goes the
//   other way. Other numbers, same quality (§2.2).
// - The order is a choice: `q_lr` is the paper's (zero start), `lr_q` that of the authors' script,
//   which starts from the best rank-r approximation of W itself: in effect another method (§5.3).
// - Early stop when the best error stalls; coordinate descent on the final Q only (the release:
//   after every Q step).
#include "core/methods/caldera.h"

#include "core/methods/common_parameters.h"
#include "core/methods/joint_loop.h"

namespace rankscope {
namespace {

class Caldera final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "caldera",
            "CALDERA",
            "Fits Q and L·R in turn to what the other leaves, weighted by the activations, and keeps the "
            "best pair.",
            "Saha et al. 2024, arXiv 2405.18886",
            {.hessian = true},
            true,
            joint_parameters()
                + std::vector{choice_parameter(
                    "order", "Order", {"q_lr", "lr_q"},
                    "Which part is fitted first: Q from a zero start, or L·R to the weight itself.")},
            check_codebook,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        JointOptions options = joint_options(parameters);
        options.low_rank_first = parameters.text("order") == "lr_q";
        const DampedLayer layer = damped_layer(problem, parameters.real("damp"), backend, monitor);
        return alternate(problem, layer, options, {}, backend, monitor);
    }
};

} // namespace

const Method& caldera_method()
{
    static const Caldera method;
    return method;
}

} // namespace rankscope
