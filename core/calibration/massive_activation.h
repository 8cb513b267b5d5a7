// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cmath>

namespace rankscope {

/// A massive activation (Sun et al. 2024, arXiv 2402.17762): |x| > 100 and > 1000 · median |x| of its state.
inline bool is_massive(double value, double median_abs)
{
    return std::abs(value) > 100.0 && std::abs(value) > 1000.0 * median_abs;
}

} // namespace rankscope
