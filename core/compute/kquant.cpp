// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/kquant.h"

#include "core/compute/detail/vector_math.h"
#include "core/tensor/half.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr Index k_widest_group = 32;
constexpr Index k_most_groups = 16;
constexpr float k_least_step = 0x1p-24F; // the least that F16 holds
constexpr float k_most_step = 65504.0F;
/// Ranges that are tried for a group: the codes' own span, and so many tenths of a code fewer or more.
constexpr int k_first_range = -9;
constexpr int k_last_range = 18;

struct GroupFit {
    double scale = 0.0;
    double minimum = 0.0;
};

/// Sums over a group's weights x and their codes u.
struct Sums {
    double u = 0.0;
    double uu = 0.0;
    double x = 0.0;
    double ux = 0.0;
    double xx = 0.0;
};

/// Codes nearest to (x − origin) · inverse within [low, high].
RANKSCOPE_MULTIARCH
void sum_group(const float* x, Index count, float origin, float inverse, float low, float high, float* terms)
{
    float lanes[5][16] = {};
    for (Index first = 0; first < count; first += 16) {
        for (Index lane = 0; lane < 16; ++lane) {
            const float value = x[first + lane];
            float code = (value - origin) * inverse;
            code = code < low ? low : code;
            code = code > high ? high : code;
            code = detail::round_even(code);
            lanes[0][lane] += code;
            lanes[1][lane] += code * code;
            lanes[2][lane] += value;
            lanes[3][lane] += code * value;
            lanes[4][lane] += value * value;
        }
    }
    for (int i = 0; i < 5; ++i)
        terms[i] = detail::lane_sum<float>(lanes[i], 16);
}

/// A group in whole vectors: a shorter last one of a row is filled up with zeros.
struct Group {
    explicit Group(std::span<const float> weights) : padded((std::ssize(weights) + 15) / 16 * 16)
    {
        for (std::size_t i = 0; i < weights.size(); ++i)
            values[i] = std::isfinite(weights[i]) ? weights[i] : 0.0F;
        for (const float value : values) {
            low = std::min(low, value);
            high = std::max(high, value);
        }
    }
    Sums sums(float origin, float inverse, float least, float most) const
    {
        float terms[5];
        sum_group(values.data(), padded, origin, inverse, least, most, terms);
        return {static_cast<double>(terms[0]), static_cast<double>(terms[1]), static_cast<double>(terms[2]),
                static_cast<double>(terms[3]), static_cast<double>(terms[4])};
    }

    Index padded;
    std::array<float, k_widest_group> values{};
    float low = 0.0F;
    float high = 0.0F;
};

/// Signed codes: the scale that leaves least, of either sign, because one side has a code more.
GroupFit fit_signed(const Group& group, int bits)
{
    const float most = std::max(-group.low, group.high);
    if (!(most > 0.0F))
        return {};
    const float half = static_cast<float>(1 << (bits - 1));
    GroupFit best;
    double gain = 0.0;
    for (const float sign : {1.0F, -1.0F}) {
        for (int range = k_first_range; range <= k_last_range; ++range) {
            const float span = half + 0.1F * static_cast<float>(range);
            const Sums sums = group.sums(0.0F, sign * span / most, -half, half - 1.0F);
            if (sums.uu > 0.0 && sums.ux * sums.ux > gain * sums.uu) {
                gain = sums.ux * sums.ux / sums.uu;
                best = {sums.ux / sums.uu, 0.0};
            }
        }
    }
    return best;
}

/// Unsigned codes above a minimum, which is never above zero.
GroupFit fit_unsigned(const Group& group, int bits)
{
    const float width = group.high - group.low;
    if (!(width > 0.0F))
        return {};
    const auto most = static_cast<float>((1 << bits) - 1);
    const auto n = static_cast<double>(group.padded);
    GroupFit best{static_cast<double>(width / most), static_cast<double>(-group.low)};
    double least = -1.0;
    for (int range = k_first_range; range <= k_last_range; ++range) {
        const float span = most + 0.1F * static_cast<float>(range);
        const Sums sums = group.sums(group.low, span / width, 0.0F, most);
        const double determinant = n * sums.uu - sums.u * sums.u;
        if (!(determinant > 0.0))
            continue;
        double scale = (n * sums.ux - sums.x * sums.u) / determinant;
        double lowest = (sums.uu * sums.x - sums.u * sums.ux) / determinant;
        if (lowest > 0.0) {
            lowest = 0.0;
            scale = sums.ux / sums.uu;
        }
        if (!(scale > 0.0))
            continue;
        const double error = sums.xx + scale * (scale * sums.uu - 2.0 * sums.ux)
                             + lowest * (n * lowest + 2.0 * scale * sums.u - 2.0 * sums.x);
        if (least < 0.0 || error < least) {
            least = error;
            best = {scale, -lowest};
        }
    }
    return best;
}

/// The step in F16 of numbers whose largest magnitude is `most`.
float step_of(double most, int limit)
{
    const auto step = static_cast<float>(std::min(most / limit, static_cast<double>(k_most_step)));
    return std::max(half_to_float(float_to_half(step)), k_least_step);
}

float multiple(double value, float step, int limit)
{
    return static_cast<float>(std::clamp(std::nearbyint(value / static_cast<double>(step)),
                                         -static_cast<double>(limit), static_cast<double>(limit)));
}

/// The largest step in F16 of which all values are whole multiples within the limit; 0 where all are 0.
std::optional<float> common_step(std::span<const float> values, int limit)
{
    float most = 0.0F;
    for (const float value : values)
        most = std::max(most, std::abs(value));
    if (most == 0.0F)
        return 0.0F;
    for (int multiples = 1; multiples <= limit; ++multiples) {
        const float step = most / static_cast<float>(multiples);
        if (!(step <= k_most_step) || half_to_float(float_to_half(step)) != step)
            continue;
        const bool all = std::all_of(values.begin(), values.end(), [&](float value) {
            return value == step * std::nearbyint(value / step);
        });
        if (all)
            return step;
    }
    return std::nullopt;
}

} // namespace

void fit_kquant(std::span<const float> block, int bits, std::span<float> scales, std::span<float> minima)
{
    const auto width = static_cast<std::size_t>(kquant_group(bits));
    std::array<GroupFit, k_most_groups> fits;
    double most_scale = 0.0;
    double most_minimum = 0.0;
    for (std::size_t g = 0; g < scales.size(); ++g) {
        const Group group(block.subspan(g * width, std::min(width, block.size() - g * width)));
        fits[g] = kquant_has_minimum(bits) ? fit_unsigned(group, bits) : fit_signed(group, bits);
        most_scale = std::max(most_scale, std::abs(fits[g].scale));
        most_minimum = std::max(most_minimum, fits[g].minimum);
    }
    const int limit = kquant_scale_limit(bits);
    const float step = step_of(most_scale, limit);
    const float minimum_step = most_minimum > 0.0 ? step_of(most_minimum, limit) : 0.0F;
    for (std::size_t g = 0; g < scales.size(); ++g) {
        float times = multiple(fits[g].scale, step, limit);
        if (times == 0.0F) // a group far below the block's largest keeps the finest scale that there is
            times = fits[g].scale < 0.0 ? -1.0F : 1.0F;
        scales[g] = step * times;
        minima[g] =
            minimum_step > 0.0F ? minimum_step * multiple(fits[g].minimum, minimum_step, limit) : 0.0F;
    }
}

std::optional<KquantParts> kquant_parts(std::span<const float> scales, std::span<const float> minima,
                                        int bits)
{
    const auto finite = [](float value) { return std::isfinite(value); };
    const auto negative = [](float value) { return value < 0.0F; };
    if (scales.size() > k_most_groups || minima.size() != scales.size()
        || !std::all_of(scales.begin(), scales.end(), finite)
        || !std::all_of(minima.begin(), minima.end(), finite)
        || (kquant_has_minimum(bits) && std::any_of(scales.begin(), scales.end(), negative))
        || std::any_of(minima.begin(), minima.end(), negative))
        return std::nullopt;
    const int limit = kquant_scale_limit(bits);
    const auto step = common_step(scales, limit);
    const auto minimum_step = common_step(minima, kquant_has_minimum(bits) ? limit : 0);
    if (!step || !minimum_step)
        return std::nullopt;
    KquantParts parts;
    parts.step = *step;
    parts.minimum_step = *minimum_step;
    for (std::size_t g = 0; g < scales.size(); ++g) {
        parts.scales[g] = *step > 0.0F ? static_cast<int>(std::nearbyint(scales[g] / *step)) : 0;
        parts.minima[g] =
            *minimum_step > 0.0F ? static_cast<int>(std::nearbyint(minima[g] / *minimum_step)) : 0;
    }
    return parts;
}

} // namespace rankscope
