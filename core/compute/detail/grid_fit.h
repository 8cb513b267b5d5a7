// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/grid_levels.h"

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

} // namespace rankscope::detail
