// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/uniform_grid.h"

#include <string>
#include <vector>

namespace rankscope::gpu::self_test {

struct GridCase {
    Index rows, cols;
    UniformGrid grid;
};

std::vector<GridCase> grid_cases();
std::string grid_name(const GridCase& item);

} // namespace rankscope::gpu::self_test
