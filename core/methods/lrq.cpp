// SPDX-License-Identifier: GPL-3.0-or-later
// LRQ (arXiv 2407.11534): low-rank weight scaling, learned to choose how each weight rounds.
//
// Idea: weights are divided by S before rounding and multiplied by the step s₁ afterwards. S differs from s₁
// by learned exponents, so that a weight may round up or down, or further, as the output needs it. Of rank r
// they have r·(m + n) parameters instead of FlexRound's m·n, which generalizes better from few samples.
//
// Equations (methods-learned §1.1): Ŵ = s₁ ⊙ clamp(⌊W / (s₁ ⊙ exp(L₂·U₂ + r₂ + c₂))⌉, −z, 2^b − 1 − z). L₂,
// r₂, c₂ start at 0: step 0 is nearest rounding. Gradients go straight through the rounding (§1.2); Adam, one
// learning rate, cosine to 0. After training only codes, s₁ and z are left: nothing is added at inference, Q
// is an ordinary grid.
//
// What differs from the paper and its release and why:
// - s₁ is learned as s₀·exp(δ), the same thing, so that step 0 equals nearest rounding to the last bit.
// - Every linear is low-rank; the release falls back to FlexRound for some shapes.
// - The rank is a quarter of the smaller side where 1024 would not be low.
// - The best parameters seen are kept, measured on all of the calibration, and sequences are held out.
// - `objective` layer needs no text: ‖(W − Ŵ)·X‖² follows from the moments (§1.3).
#include "core/methods/lrq.h"

#include "core/methods/learned_method.h"

namespace rankscope {
namespace {

class Lrq final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "lrq",
            "LRQ",
            "Learns which way each weight rounds, by divisors with low-rank exponents; the result is an "
            "ordinary grid.",
            "Lee et al. 2024, arXiv 2407.11534",
            {.hessian = true},
            false,
            learned_parameters(LearnedKind::Lrq),
            check_learned,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        return reconstruct_from_moments(problem, info(), parameters, LearnedKind::Lrq, backend, monitor);
    }
};

} // namespace

const Method& lrq_method()
{
    static const Lrq method;
    return method;
}

} // namespace rankscope
