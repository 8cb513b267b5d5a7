// SPDX-License-Identifier: GPL-3.0-or-later
// Row means beside Q: the worked example of docs/adding-a-method.md.
//
// Idea: a row whose weights do not lie around zero wastes the levels of a symmetric grid. With m the mean of
// each row, W = (W − m·1ᵀ) + m·1ᵀ: the second part is of rank one and is kept as L·R, the first is rounded to
// nearest. Needs no calibration.
#include "tests/examples/mean_split.h"

#include "core/methods/common_parameters.h"
#include "core/methods/layer_rounding.h"

namespace rankscope::examples {
namespace {

class MeanSplit final : public Method {
public:
    const MethodInfo& info() const override
    {
        static const MethodInfo info{
            "mean_split",
            "Row means and rounding",
            "Keeps the mean of each row as a part of rank one and rounds the rest.",
            "the worked example of docs/adding-a-method.md",
            {.hessian = false},
            true,
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
        const Index in = problem.weight.cols();
        const Matrix ones = Matrix::Ones(1, in);
        monitor.report(0, 2, "LR");
        // The mean of a row is its product with 1ᵀ / in.
        Buffer means = backend.allocate(problem.weight.rows(), 1, Precision::Float32);
        backend.gemm(1.0 / static_cast<double>(in), problem.weight, Transpose::No, backend.upload(ones),
                     Transpose::Yes, 0.0, means);
        Buffer rest = backend.copy(problem.weight);
        backend.gemm(-1.0, means, Transpose::No, backend.upload(ones), Transpose::No, 1.0, rest);
        monitor.report(1, 2, "Q");
        monitor.throw_if_cancelled();
        const RoundedLayer layer = round_to_nearest(rest, grid_of(parameters), backend, monitor);
        Decomposition result = decomposition_of(problem, layer, backend);
        result.low_rank = {backend.download(means), ones};
        monitor.report(2, 2, "Q");
        return finite_or_error(std::move(result), problem);
    }
};

} // namespace

const Method& mean_split_method()
{
    static const MeanSplit method;
    return method;
}

} // namespace rankscope::examples
