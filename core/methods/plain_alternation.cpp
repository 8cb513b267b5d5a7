// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/plain_alternation.h"

#include "core/linalg/weighted_low_rank.h"
#include "core/methods/layer_rounding.h"
#include "core/methods/residual_correction.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

class Alternation {
public:
    Alternation(const LayerProblem& problem, const AlternationOptions& options, Backend& backend,
                Monitor& monitor)
        : problem_(problem), options_(options), backend_(backend), monitor_(monitor), target_(problem.weight),
          remainder_(problem.weight)
    {
        if (options.hessian)
            hessian_ = backend.upload(*options.hessian);
    }

    void step()
    {
        if (options_.low_rank_first)
            fit();
        round();
        if (!options_.low_rank_first)
            fit();
    }

    /// W − Q − L·R in the metric.
    double error()
    {
        Buffer left = backend_.copy(remainder_);
        if (!factors_.left.empty())
            backend_.gemm(-1.0, factors_.left, Transpose::No, factors_.right, Transpose::No, 1.0, left);
        return norm(left);
    }
    double norm(const Buffer& matrix) const
    {
        const double square = hessian_.empty() ? backend_.dot(matrix, matrix)
                                               : weighted_squared_norm(matrix, hessian_, backend_);
        return std::sqrt(std::max(0.0, square));
    }
    Decomposition decomposition() const
    {
        Decomposition made = decomposition_of(problem_, layer_, backend_);
        if (!factors_.left.empty())
            made.low_rank = balanced(factors_, backend_);
        return made;
    }
    double scale() const
    {
        return quantization_scale(layer_, root_mean_square(problem_.weight, backend_), backend_);
    }

private:
    void round()
    {
        monitor_.throw_if_cancelled();
        layer_ = round_to_nearest(target_, options_.grid, backend_, monitor_);
        remainder_ = backend_.difference(problem_.weight, layer_.rounded.values);
    }
    void fit()
    {
        if (options_.rank == 0)
            return;
        monitor_.throw_if_cancelled();
        factors_ = best_low_rank(remainder_, {}, options_.rank, backend_);
        target_ = backend_.copy(problem_.weight);
        backend_.gemm(-1.0, factors_.left, Transpose::No, factors_.right, Transpose::No, 1.0, target_);
    }

    const LayerProblem& problem_;
    const AlternationOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Buffer hessian_;
    Buffer target_;    ///< W − L·R
    Buffer remainder_; ///< W − Q
    LowRankBuffers factors_;
    RoundedLayer layer_;
};

} // namespace

Result<Decomposition> alternate(const LayerProblem& problem, const AlternationOptions& options,
                                Backend& backend, Monitor& monitor)
{
    Alternation alternation(problem, options, backend, monitor);
    const double whole = alternation.norm(problem.weight);
    Decomposition best;
    std::vector<IterationReport> trace;
    double least = std::numeric_limits<double>::infinity();
    double before = least;
    for (int step = 1; step <= options.iterations; ++step) {
        monitor.throw_if_cancelled();
        monitor.report(static_cast<std::uint64_t>(step - 1), static_cast<std::uint64_t>(options.iterations),
                       "refine");
        alternation.step();
        const double error = alternation.error();
        IterationReport report;
        report.step = step;
        report.stage = options.low_rank_first ? "Q" : "LR";
        report.relative_activation_error = whole > 0.0 ? error / whole : 0.0;
        report.quantization_scale = alternation.scale();
        trace.push_back(std::move(report));
        if (error < least || !options.keep_best || best.quantized.empty()) {
            least = error;
            best = alternation.decomposition();
        }
        // Without L·R nothing that Q could be fitted to changes.
        if (options.rank == 0 || (options.stop_when_rising && error > before))
            break;
        before = error;
    }
    monitor.throw_if_cancelled();
    best.trace = std::move(trace);
    return finite_or_error(std::move(best), problem);
}

} // namespace rankscope
