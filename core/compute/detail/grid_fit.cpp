// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/grid_fit.h"

#include "core/compute/detail/cpu_backend.h"
#include "core/compute/detail/vector_math.h"

#include <algorithm>
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

/// Σ (|s·code(w) − w| / s)² of at most k_error_block weights, at a fifth of the estimate's cost.
RANKSCOPE_MULTIARCH
float squared_error(const float* w, Index count, float inverse_scale, float low, float high)
{
    constexpr Index lanes = 32;
    float sums[lanes] = {};
    Index i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (Index lane = 0; lane < lanes; ++lane) {
            const float x = w[i + lane] * inverse_scale;
            const float missed = grid_code(x, low, high) - x;
            sums[lane] += missed * missed;
        }
    }
    for (Index lane = 0; i < count; ++i, ++lane) {
        const float x = w[i] * inverse_scale;
        const float missed = grid_code(x, low, high) - x;
        sums[lane] += missed * missed;
    }
    for (Index half = lanes / 2; half > 0; half /= 2)
        for (Index lane = 0; lane < half; ++lane)
            sums[lane] += sums[lane + half];
    return sums[0];
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

/// All candidates of a search, in the order in which the first best one wins.
std::vector<Candidate> candidates_of(double low, double high, const UniformGrid& grid)
{
    std::vector<Candidate> candidates;
    if (grid.clip == ClipSearch::Shrink) {
        const int count = static_cast<int>(std::lround(grid.clip_shrink * grid.clip_steps));
        candidates.reserve(static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) {
            const double part = 1.0 - static_cast<double>(i) / grid.clip_steps;
            candidates.push_back(scale_of_range(part * low, part * high, grid));
        }
        return candidates;
    }
    const int levels = (1 << grid.bits) - 1;
    const double most = std::max(-low, high);
    for (int i = 1; i <= grid.clip_steps; ++i) {
        if (grid.symmetric) {
            const double threshold = most / grid.clip_steps * i;
            candidates.push_back(scale_of_range(-threshold, threshold, grid));
            continue;
        }
        const double width = (high - low) / grid.clip_steps * i;
        for (int zero = 0; zero <= levels; ++zero) {
            const double shift = zero * (width / levels);
            candidates.push_back(scale_of_range(std::min(-shift, 0.0), std::max(width - shift, 0.0), grid));
        }
    }
    return candidates;
}

/// scale^norm of every candidate: what brings estimates of different scales into one unit.
RANKSCOPE_MULTIARCH
void powers_of_scales(const Candidate* candidates, Index count, double norm, double* powers)
{
    for (Index i = 0; i < count; ++i)
        powers[i] = power_double(candidates[i].scale, norm);
}

/// What a search measures a candidate by, from cheap to exact. `squares` and `estimate` are in units of the
/// scale; `estimate(candidate, limit)` may stop above its limit.
template <class SquaresOf, class EstimateOf, class ErrorOf>
struct Measures {
    Index count; ///< weights
    SquaresOf squares;
    EstimateOf estimate;
    ErrorOf error;
};
template <class SquaresOf, class EstimateOf, class ErrorOf>
Measures(Index, SquaresOf, EstimateOf, ErrorOf) -> Measures<SquaresOf, EstimateOf, ErrorOf>;

/// Estimates of all candidates that may be the best, infinity for the others. Means of powers rise with the
/// power: Σ e^p ≥ n·(Σ e²/n)^(p/2) for p ≥ 2, so that most candidates fail by their squares alone.
template <class M>
std::vector<double> estimates_of(const std::vector<Candidate>& candidates, double norm, const M& measures)
{
    const std::size_t count = candidates.size();
    std::vector<double> powers(count);
    powers_of_scales(candidates.data(), std::ssize(candidates), norm, powers.data());
    std::vector<double> squares(count, 0.0);
    if (norm >= 2.0) {
        for (std::size_t i = 0; i < count; ++i)
            squares[i] = candidates[i].scale * candidates[i].scale * measures.squares(candidates[i]);
    }
    std::vector<double> estimates(count, std::numeric_limits<double>::infinity());
    double least = std::numeric_limits<double>::infinity();
    double most_squares = least; // of a candidate that may still be the best
    const auto weights = static_cast<double>(measures.count);
    const auto try_candidate = [&](std::size_t i) {
        const double limit = least * (1.0 + k_screen_margin) / powers[i];
        estimates[i] = powers[i] * measures.estimate(candidates[i], limit);
        if (!(estimates[i] < least))
            return;
        least = estimates[i];
        if (norm >= 2.0)
            most_squares = weights * std::pow(least * (1.0 + 2.0 * k_screen_margin) / weights, 2.0 / norm);
    };
    const auto promising =
        static_cast<std::size_t>(std::min_element(squares.begin(), squares.end()) - squares.begin());
    try_candidate(promising);
    for (std::size_t i = 0; i < count; ++i) {
        if (i != promising && !(squares[i] > most_squares))
            try_candidate(i);
    }
    return estimates;
}

/// The first candidate with the least error: fast estimates leave those that may be the best, and only these
/// are measured exactly.
template <class M>
Candidate first_best(const std::vector<Candidate>& candidates, double norm, const M& measures)
{
    const std::vector<double> estimates = estimates_of(candidates, norm, measures);
    const double limit = *std::min_element(estimates.begin(), estimates.end()) * (1.0 + k_screen_margin);
    const auto near = [&](double estimate) { return estimate <= limit; };
    std::size_t best = 0;
    if (std::count_if(estimates.begin(), estimates.end(), near) == 1) {
        best = static_cast<std::size_t>(std::find_if(estimates.begin(), estimates.end(), near)
                                        - estimates.begin());
        return candidates[best];
    }
    double least_error = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (!near(estimates[i]))
            continue;
        const double error = measures.error(candidates[i]);
        if (error < least_error) {
            least_error = error;
            best = i;
        }
    }
    return candidates[best];
}

template <class M>
GroupScale fit_range(const Range& range, const UniformGrid& grid, const M& measures)
{
    const double low = static_cast<double>(range.low);
    const double high = static_cast<double>(range.high);
    const float largest = std::max(-range.low, range.high);
    if (grid.levels == GridLevels::NormalFloat)
        return {normal_float_scale(largest), 0.0F};
    if (grid.levels == GridLevels::MxInt)
        return {mx_int_step(largest, grid.bits), 0.0F};
    const bool search = grid.clip != ClipSearch::None && std::isfinite(high - low) && high > low;
    const Candidate chosen = search ? first_best(candidates_of(low, high, grid), grid.clip_norm, measures)
                                    : scale_of_range(low, high, grid);
    return {static_cast<float>(chosen.scale), static_cast<float>(chosen.zero)};
}

double squares(std::span<const float> weights, const Candidate& candidate, const UniformGrid& grid)
{
    const float low = lowest_code(grid, static_cast<float>(candidate.zero));
    const float high = low + code_span(grid);
    const Index count = static_cast<Index>(weights.size());
    double sum = 0.0;
    for (Index first = 0; first < count; first += k_error_block)
        sum +=
            static_cast<double>(squared_error(weights.data() + first, std::min(k_error_block, count - first),
                                              static_cast<float>(1.0 / candidate.scale), low, high));
    return sum;
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
    return fit_range(
        {low_high[0], low_high[1]}, grid,
        Measures{static_cast<Index>(weights.size()),
                 [&](const Candidate& candidate) { return squares(weights, candidate, grid); },
                 [&](const Candidate& candidate, double limit) {
                     return estimate(weights, candidate, grid, limit);
                 },
                 [&](const Candidate& candidate) { return candidate_error(weights, candidate, grid); }});
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
    return fit_range(range, grid,
                     Measures{count,
                              [&](const Candidate& candidate) {
                                  return sum_of([&](std::span<const float> part) {
                                      return squares(part, candidate, grid);
                                  });
                              },
                              [&](const Candidate& candidate, double limit) {
                                  return sum_of([&](std::span<const float> part) {
                                      return estimate(part, candidate, grid, limit);
                                  });
                              },
                              [&](const Candidate& candidate) {
                                  return sum_of([&](std::span<const float> part) {
                                      return candidate_error(part, candidate, grid);
                                  });
                              }});
}

} // namespace rankscope::detail
