// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/kquant.h"
#include "core/compute/mx_int.h"
#include "core/compute/normal_float.h"
#include "core/compute/uniform_grid.h"

#include <algorithm>
#include <cmath>

namespace rankscope {

// What the codes of a scalar grid are, for everyone who rounds, stores or reads them.

/// Whether value = scale · code − zero, the zero being no code but a value of its own (K types with minima).
inline bool has_minimum(const ScalarGrid& grid)
{
    return grid.levels == GridLevels::Kquant && kquant_has_minimum(grid.bits);
}

/// Lowest code of a group with this zero point; the highest is code_span() above.
inline float lowest_code(const ScalarGrid& grid, float zero)
{
    if (grid.levels == GridLevels::NormalFloat)
        return -static_cast<float>(normal_float_zero(grid.bits));
    if (grid.levels == GridLevels::MxInt)
        return -static_cast<float>(mx_int_largest_code(grid.bits));
    if (has_minimum(grid))
        return 0.0F;
    return grid.symmetric ? -static_cast<float>(1 << (grid.bits - 1)) : -zero;
}

inline float code_span(const ScalarGrid& grid)
{
    const int codes =
        grid.levels == GridLevels::MxInt ? 2 * mx_int_largest_code(grid.bits) + 1 : 1 << grid.bits;
    return static_cast<float>(codes - 1);
}

/// What a code stands for, in units of the scale.
inline float grid_level(const ScalarGrid& grid, int code)
{
    if (grid.levels != GridLevels::NormalFloat)
        return static_cast<float>(code);
    const auto levels = normal_float_levels(grid.bits);
    const int place = std::clamp(code + normal_float_zero(grid.bits), 0, static_cast<int>(levels.size()) - 1);
    return levels[static_cast<std::size_t>(place)];
}

/// The weight that a code stands for in a group of this scale and zero.
inline float grid_value(const ScalarGrid& grid, float scale, float zero, int code)
{
    const float value = scale * grid_level(grid, code);
    return has_minimum(grid) ? value - zero : value;
}

/// The code nearest to x (in units of the scale) in a group with this zero point: half to even, NormalFloat
/// the lower level on a tie.
inline int nearest_code(const ScalarGrid& grid, float zero, double x)
{
    if (grid.levels == GridLevels::NormalFloat)
        return nearest_normal_float(static_cast<float>(x), grid.bits) - normal_float_zero(grid.bits);
    const double low = static_cast<double>(lowest_code(grid, zero));
    return static_cast<int>(std::clamp(std::nearbyint(x), low, low + static_cast<double>(code_span(grid))));
}

/// Whether a grid of these levels has so many bits.
inline bool has_bits(GridLevels levels, int bits)
{
    if (levels == GridLevels::Kquant)
        return bits >= k_least_kquant_bits && bits <= k_most_kquant_bits;
    return bits >= 2 && bits <= (levels == GridLevels::NormalFloat ? k_most_normal_float_bits : 8);
}

/// Bits that one scale takes with its zero point: 16 and b, 16 (symmetric, NormalFloat), 8 (a shared
/// exponent), 7 to 16 (K types).
inline double bits_per_scale(const ScalarGrid& grid)
{
    if (grid.levels == GridLevels::MxInt)
        return k_mx_int_exponent_bits;
    if (grid.levels == GridLevels::Kquant)
        return kquant_bits_per_group(grid.bits);
    return 16.0 + (grid.symmetric ? 0.0 : static_cast<double>(grid.bits));
}

} // namespace rankscope
