// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/training.h"

namespace rankscope {

/// Why learned rounding of `w`, or its gradient in the shape of `w`, cannot be computed with this grid; null
/// when it can. Every backend asks.
const char* learned_misfit(const Buffer& w, const LearnedGrid& grid);

} // namespace rankscope
