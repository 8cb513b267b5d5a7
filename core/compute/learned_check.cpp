// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/learned_check.h"

namespace rankscope {

const char* learned_misfit(const Buffer& w, const LearnedGrid& grid)
{
    const Index groups = grid.grid.group < 0 ? 0 : grid.grid.groups(w.cols());
    const auto fits = [&](const Buffer& buffer, Index rows, Index cols) {
        return buffer.rows() == rows && buffer.cols() == cols && buffer.precision() == w.precision();
    };
    if (groups == 0)
        return "one scale for a whole matrix cannot be learned";
    if (!fits(grid.scales, w.rows(), groups) || !fits(grid.zeros, w.rows(), groups)
        || !fits(grid.shift, w.rows(), groups))
        return "scales, zeros or shifts have another shape";
    if (!fits(grid.exponent, w.rows(), w.cols()) || !fits(grid.rows, w.rows(), 1)
        || (!grid.columns.empty() && !fits(grid.columns, 1, w.cols())))
        return "exponents have another shape";
    return nullptr;
}

} // namespace rankscope
