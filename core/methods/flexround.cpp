// SPDX-License-Identifier: GPL-3.0-or-later
// FlexRound (arXiv 2306.00317): learned rounding by element-wise division.
//
// Idea: each weight has a divisor of its own, learned so that the layer's output is kept. Its gradient is
// proportional to the weight: large weights move their own rounding more, and may jump several steps.
//
// Equations (methods-learned §2): Ŵ = s₁ ⊙ clamp(⌊W / (s₁ ⊙ exp(S₂ + r))⌉, −z, 2^b − 1 − z), S₂ full and r
// one per output, both 0 at the start; gradients and training as LRQ's (lrq.cpp), which differs by its
// low-rank exponents only.
//
// What differs from the paper and why: divisors in the log domain, as the authors' own release of LRQ has
// them, which needs no positivity constraint; the best parameters seen are kept.
#include "core/methods/flexround.h"

#include "core/methods/learned_method.h"

namespace rankscope {
namespace {

class FlexRound final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "flexround",
            "FlexRound",
            "Learns which way each weight rounds, by a divisor for each weight; the result is an ordinary "
            "grid.",
            "Lee et al. 2023, arXiv 2306.00317",
            {.hessian = true},
            false,
            learned_parameters(LearnedKind::FlexRound),
            check_learned,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        return reconstruct_from_moments(problem, info(), parameters, LearnedKind::FlexRound, backend,
                                        monitor);
    }
};

} // namespace

const Method& flexround_method()
{
    static const FlexRound method;
    return method;
}

} // namespace rankscope
