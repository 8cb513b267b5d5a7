// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/grid_fit.h"

#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace rankscope::detail {
namespace {

constexpr int k_lanes = 16;
constexpr Index k_error_block = 512;     // a hopeless candidate is dropped after so many weights
constexpr Index k_stretch = 1 << 16;     // weights of a task in fit_whole
constexpr double k_screen_margin = 1e-3; // ten times the deviation of the estimate
constexpr double k_least_scale = 1e-8;

struct Range {
    float low = 0.0F;  ///< ≤ 0
    float high = 0.0F; ///< ≥ 0
};

/// Least and largest weight, widened to hold 0; NaN is passed over.
RANKSCOPE_MULTIARCH
void weight_range(const float* w, Index count, float* low_high)
{
    float low[k_lanes] = {};
    float high[k_lanes] = {};
    Index i = 0;
    for (; i + k_lanes <= count; i += k_lanes) {
        for (int lane = 0; lane < k_lanes; ++lane) {
            const float x = w[i + lane];
            low[lane] = x < low[lane] ? x : low[lane];
            high[lane] = x > high[lane] ? x : high[lane];
        }
    }
    for (; i < count; ++i) {
        low[0] = w[i] < low[0] ? w[i] : low[0];
        high[0] = w[i] > high[0] ? w[i] : high[0];
    }
    for (int lane = 1; lane < k_lanes; ++lane) {
        low[0] = low[lane] < low[0] ? low[lane] : low[0];
        high[0] = high[lane] > high[0] ? high[lane] : high[0];
    }
    low_high[0] = low[0];
    low_high[1] = high[0];
}

/// Σ |s·code(w) − w|^norm of at most k_error_block weights, in float64: neighboring candidates often differ
/// by less than float32 can tell. Terms first, then their sum: the first loop has no order to keep and
/// becomes vector code.
RANKSCOPE_MULTIARCH
double rounding_error(const float* w, Index count, double scale, double low, double high, double norm)
{
    double terms[k_error_block];
    for (Index i = 0; i < count; ++i) {
        const double x = static_cast<double>(w[i]);
        terms[i] = power_double(magnitude(scale * grid_code(x / scale, low, high) - x), norm);
    }
    return lane_sum<double>(terms, count);
}

/// About Σ (|s·code(w) − w| / s)^norm of at most k_error_block weights, several times as fast.
RANKSCOPE_MULTIARCH
float estimated_error(const float* w, Index count, float inverse_scale, float low, float high, float norm)
{
    float terms[k_error_block];
    for (Index i = 0; i < count; ++i) {
        const float x = w[i] * inverse_scale;
        terms[i] = power_estimate(magnitude(grid_code(x, low, high) - x) + 1e-9F, norm);
    }
    return lane_sum<float>(terms, count);
}

struct Candidate {
    double scale = 0.0;
    double zero = 0.0;
};

/// The rule of methods-joint §1.1 for a range that holds 0.
Candidate scale_of_range(double low, double high, const UniformGrid& grid)
{
    const double levels = static_cast<double>((1 << grid.bits) - 1);
    if (grid.symmetric) {
        const double most = std::max(-low, high);
        const double step = grid.rule == SymmetricRule::Full
                                ? 2.0 * most / levels
                                : most / static_cast<double>((1 << (grid.bits - 1)) - 1);
        return {std::max(step, k_least_scale), 0.0};
    }
    const double scale = std::max((high - low) / levels, k_least_scale);
    return {scale, std::min(std::max(-std::nearbyint(low / scale), 0.0), levels)};
}

/// Keeps the first candidate with the least error. `error_of(candidate, bound)` may stop once it exceeds the
/// bound.
template <class ErrorOf>
class Search {
public:
    Search(Candidate start, const ErrorOf& error_of) : best_(start), error_of_(error_of) {}

    /// False when no later candidate can be better.
    bool offer(const Candidate& candidate)
    {
        const double error = error_of_(candidate, least_);
        if (error < least_) {
            least_ = error;
            best_ = candidate;
        }
        return least_ > 0.0;
    }
    const Candidate& best() const { return best_; }

private:
    Candidate best_;
    const ErrorOf& error_of_;
    double least_ = std::numeric_limits<double>::infinity();
};

template <class ErrorOf>
Candidate search_shrink(double low, double high, const UniformGrid& grid, const ErrorOf& error_of)
{
    Search search(scale_of_range(low, high, grid), error_of);
    const int candidates = static_cast<int>(std::lround(grid.clip_shrink * grid.clip_steps));
    for (int i = 0; i < candidates; ++i) {
        const double part = 1.0 - static_cast<double>(i) / grid.clip_steps;
        if (!search.offer(scale_of_range(part * low, part * high, grid)))
            break;
    }
    return search.best();
}

template <class ErrorOf>
Candidate search_widths(double low, double high, const UniformGrid& grid, const ErrorOf& error_of)
{
    Search search(scale_of_range(low, high, grid), error_of);
    const int levels = (1 << grid.bits) - 1;
    const double most = std::max(-low, high);
    for (int i = 1; i <= grid.clip_steps; ++i) {
        if (grid.symmetric) {
            const double threshold = most / grid.clip_steps * i;
            if (!search.offer(scale_of_range(-threshold, threshold, grid)))
                return search.best();
            continue;
        }
        const double width = (high - low) / grid.clip_steps * i;
        for (int zero = 0; zero <= levels; ++zero) {
            const double shift = zero * (width / levels);
            if (!search.offer(scale_of_range(std::min(-shift, 0.0), std::max(width - shift, 0.0), grid)))
                return search.best();
        }
    }
    return search.best();
}

template <class ErrorOf>
GroupScale fit_range(const Range& range, const UniformGrid& grid, const ErrorOf& error_of)
{
    const double low = static_cast<double>(range.low);
    const double high = static_cast<double>(range.high);
    const float largest = std::max(-range.low, range.high);
    if (grid.levels == GridLevels::NormalFloat)
        return {normal_float_scale(largest), 0.0F};
    if (grid.levels == GridLevels::MxInt)
        return {mx_int_step(largest, grid.bits), 0.0F};
    Candidate chosen;
    if (grid.clip == ClipSearch::None || !std::isfinite(high - low))
        chosen = scale_of_range(low, high, grid);
    else if (grid.clip == ClipSearch::Shrink)
        chosen = search_shrink(low, high, grid, error_of);
    else
        chosen = search_widths(low, high, grid, error_of);
    return {static_cast<float>(chosen.scale), static_cast<float>(chosen.zero)};
}

/// The error that an estimate must exceed for its candidate to lie clearly above `bound`, in the estimate's
/// units.
double hopeless_above(double bound, const Candidate& candidate, const UniformGrid& grid)
{
    return bound * (1.0 + k_screen_margin) / std::pow(candidate.scale, grid.clip_norm);
}

/// The float32 estimate of a candidate's error; stops once it exceeds `limit`.
double estimate(std::span<const float> weights, const Candidate& candidate, const UniformGrid& grid,
                double limit)
{
    const float low = lowest_code(grid, static_cast<float>(candidate.zero));
    const float high = low + code_span(grid);
    const Index count = static_cast<Index>(weights.size());
    double sum = 0.0;
    for (Index first = 0; first < count && !(sum > limit); first += k_error_block)
        sum += static_cast<double>(estimated_error(
            weights.data() + first, std::min(k_error_block, count - first),
            static_cast<float>(1.0 / candidate.scale), low, high, static_cast<float>(grid.clip_norm)));
    return sum;
}

double candidate_error(std::span<const float> weights, const Candidate& candidate, const UniformGrid& grid)
{
    const double low = static_cast<double>(lowest_code(grid, static_cast<float>(candidate.zero)));
    const double high = low + static_cast<double>(code_span(grid));
    const Index count = static_cast<Index>(weights.size());
    double sum = 0.0;
    for (Index first = 0; first < count; first += k_error_block)
        sum += rounding_error(weights.data() + first, std::min(k_error_block, count - first), candidate.scale,
                              low, high, grid.clip_norm);
    return sum;
}

} // namespace

GroupScale fit_group(std::span<const float> weights, const UniformGrid& grid)
{
    float low_high[2] = {};
    weight_range(weights.data(), static_cast<Index>(weights.size()), low_high);
    return fit_range({low_high[0], low_high[1]}, grid, [&](const Candidate& candidate, double bound) {
        const double limit = hopeless_above(bound, candidate, grid);
        return estimate(weights, candidate, grid, limit) > limit ? bound
                                                                 : candidate_error(weights, candidate, grid);
    });
}

GroupScale fit_whole(std::span<const float> weights, const UniformGrid& grid)
{
    const Index count = static_cast<Index>(weights.size());
    const std::size_t stretches = static_cast<std::size_t>((count + k_stretch - 1) / k_stretch);
    std::vector<Range> ranges(stretches);
    for_stretches(count, k_stretch, [&](Index first, Index length) {
        float low_high[2] = {};
        weight_range(weights.data() + first, length, low_high);
        ranges[static_cast<std::size_t>(first / k_stretch)] = {low_high[0], low_high[1]};
    });
    Range range;
    for (const Range& part : ranges)
        range = {std::min(range.low, part.low), std::max(range.high, part.high)};

    std::vector<double> parts(stretches);
    const auto sum_of = [&](const auto& error_of_stretch) {
        for_stretches(count, k_stretch, [&](Index first, Index length) {
            parts[static_cast<std::size_t>(first / k_stretch)] = error_of_stretch(
                weights.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(length)));
        });
        return std::accumulate(parts.begin(), parts.end(), 0.0);
    };
    return fit_range(range, grid, [&](const Candidate& candidate, double bound) {
        const double limit = hopeless_above(bound, candidate, grid);
        if (sum_of([&](std::span<const float> part) { return estimate(part, candidate, grid, limit); })
            > limit)
            return bound;
        return sum_of([&](std::span<const float> part) { return candidate_error(part, candidate, grid); });
    });
}

} // namespace rankscope::detail
