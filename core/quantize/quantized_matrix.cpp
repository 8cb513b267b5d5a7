// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/quantized_matrix.h"

#include "core/base/thread_pool.h"

#include <cmath>

namespace rankscope {

Matrix QuantizedMatrix::dequantize() const
{
    Matrix values(codes.rows(), codes.cols());
    const Index width = grid.group_width(codes.cols());
    parallel_for(0, codes.rows(), [&](Index row) {
        for (Index col = 0; col < codes.cols(); ++col)
            values(row, col) = scales(row, col / width) * static_cast<float>(codes(row, col));
    });
    return values;
}

double QuantizedMatrix::bits_per_weight() const
{
    if (empty())
        return 0.0;
    const double scale_count =
        grid.group < 0 ? 1.0
                       : static_cast<double>(codes.rows()) * static_cast<double>(grid.groups(codes.cols()));
    const double bits_per_scale = 16.0 + (grid.symmetric ? 0.0 : static_cast<double>(grid.bits));
    return grid.bits + scale_count * bits_per_scale / static_cast<double>(codes.size());
}

QuantizedMatrix to_host(const RoundedBuffers& rounded, const GridBuffers& grid, Backend& backend)
{
    QuantizedMatrix result;
    result.grid = grid.grid;
    const Matrix codes = backend.download(rounded.codes);
    result.codes.resize(codes.rows(), codes.cols());
    parallel_for(0, codes.rows(), [&](Index row) {
        for (Index col = 0; col < codes.cols(); ++col)
            result.codes(row, col) = static_cast<std::int16_t>(std::lrintf(codes(row, col)));
    });
    result.scales = backend.download(grid.scales);
    result.zeros = backend.download(grid.zeros);
    return result;
}

} // namespace rankscope
