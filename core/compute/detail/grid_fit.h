// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/uniform_grid.h"

#include <span>

namespace rankscope::detail {

/// Scale and zero point of one group.
struct GroupScale {
    float scale = 0.0F;
    float zero = 0.0F;
};

/// Fits a group that lies in memory as one stretch (methods-joint §1.1). Elements that are not finite never
/// hang the search; the grid is then of no use, and refusing them is the caller's part.
GroupScale fit_group(std::span<const float> weights, const UniformGrid& grid);

/// The same for group = −1: all weights are one group, searched by stretches in parallel.
GroupScale fit_whole(std::span<const float> weights, const UniformGrid& grid);

/// Lowest code of a group; the highest is 2^bits − 1 above.
inline float lowest_code(const UniformGrid& grid, float zero)
{
    return grid.symmetric ? -static_cast<float>(1 << (grid.bits - 1)) : -zero;
}
inline float code_span(const UniformGrid& grid) { return static_cast<float>((1 << grid.bits) - 1); }

} // namespace rankscope::detail
