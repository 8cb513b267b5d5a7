// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/mx_int.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {

float mx_int_step(float largest, int bits)
{
    const int exponent = largest > 0.0F && std::isfinite(largest) ? std::ilogb(largest) : 0;
    return std::max(std::ldexp(1.0F, exponent - (bits - 2)), std::numeric_limits<float>::min());
}

} // namespace rankscope
