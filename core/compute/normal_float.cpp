// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/normal_float.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <vector>

namespace rankscope {
namespace {

/// 1 − ½(1/32 + 1/30): the outermost quantile, so that no level is infinite (QLoRA's release).
constexpr double k_outermost = 0.9677083;

/// Φ⁻¹(p) for p in [½, 1), by bisection: a few dozen values once in a program's life.
double normal_quantile(double p)
{
    double low = 0.0;
    double high = 10.0;
    for (int step = 0; step < 80; ++step) {
        const double middle = 0.5 * (low + high);
        (1.0 - 0.5 * std::erfc(middle / std::sqrt(2.0)) < p ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

std::vector<float> make_levels(int bits)
{
    const int half = 1 << (bits - 1);
    const double largest = normal_quantile(k_outermost);
    std::vector<float> levels{0.0F};
    // `count` equally spaced probabilities from the outermost one down to ½, which is left out.
    const auto add_side = [&](int count, double sign) {
        for (int i = 0; i < count; ++i) {
            const double p = k_outermost + (0.5 - k_outermost) * i / count;
            levels.push_back(static_cast<float>(sign * normal_quantile(p) / largest));
        }
    };
    add_side(half, 1.0);
    add_side(half - 1, -1.0);
    std::sort(levels.begin(), levels.end());
    return levels;
}

} // namespace

std::span<const float> normal_float_levels(int bits)
{
    static const std::array<std::vector<float>, 3> tables{make_levels(2), make_levels(3), make_levels(4)};
    assert(bits >= k_least_normal_float_bits && bits <= k_most_normal_float_bits);
    return tables[static_cast<std::size_t>(bits - k_least_normal_float_bits)];
}

float normal_float_scale(float largest) { return largest > 0.0F ? largest : 1.0F; }

int nearest_normal_float(float x, int bits)
{
    const std::span<const float> levels = normal_float_levels(bits);
    int place = 0;
    for (std::size_t i = 1; i < levels.size(); ++i)
        place += x > 0.5F * (levels[i - 1] + levels[i]) ? 1 : 0;
    return place;
}

} // namespace rankscope
