// SPDX-License-Identifier: GPL-3.0-or-later
// Rounding to nearest (RTN).
//
// Idea: give each group of consecutive inputs one scale (and a zero point) from its range and round every
// weight to the nearest step: Q = s·clamp(⌊W/s⌉), methods-joint §1.1, methods-learned §0. No calibration, no
// low-rank part: what all other methods are measured against.
//
// Asymmetric: s = (hi − lo)/(2^b − 1), z = clamp(−⌊lo/s⌉), with the range widened to hold 0. Symmetric:
// `full` s = 2·max|w|/(2^b − 1), `restricted` s = max|w|/(2^(b−1) − 1). Rounding is half to even, and divides
// by s.
//
// The range may be narrowed by a search (least Σ|q(w) − w|^2.4): `shrink` as GPTQ and QuaRot do, `grid` as
// LRQ's release does. The default `auto` searches at 2 bits only, because there the largest weight decides
// over half of all codes, while at 3 bits and more the search hardly matters (measured; methods-joint §8.3b).
#include "core/methods/rtn.h"

#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"

namespace rankscope {
namespace {

class Rtn final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "rtn",
            "Rounding to nearest",
            "Rounds every weight to the nearest step of its group's grid.",
            "uniform grids as in GPTQ, arXiv 2210.17323",
            {.hessian = false},
            false,
            grid_parameters(4) + std::vector{scalar_codebook_parameter()},
            check_codebook,
        };
        return info;
    }

    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override
    {
        if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
            return checked.error();
        const RoundedLayer layer = round_to_nearest(problem.weight, grid_of(parameters), backend, monitor);
        return finite_or_error(decomposition_of(problem, layer, backend), problem);
    }
};

} // namespace

const Method& rtn_method()
{
    static const Rtn method;
    return method;
}

} // namespace rankscope
