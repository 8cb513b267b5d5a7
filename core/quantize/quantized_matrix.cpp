// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/quantized_matrix.h"

#include "core/base/thread_pool.h"
#include "core/compute/grid_levels.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace rankscope {
namespace {

Matrix lattice_values(const QuantizedMatrix& q)
{
    Matrix values(q.rows(), q.cols());
    const Index stages = q.grid.bits == 4 ? 2 : 1;
    const float scale = q.scales(0, 0);
    parallel_for(0, q.rows(), [&](Index row) {
        for (Index first = 0; first < q.cols(); first += 8) {
            const Index place = first / 8 * stages;
            E8Point point = e8p_decode(std::bit_cast<std::uint16_t>(q.codes(row, place)));
            if (stages == 2) {
                const E8Point rest = e8p_decode(std::bit_cast<std::uint16_t>(q.codes(row, place + 1)));
                for (std::size_t i = 0; i < point.size(); ++i)
                    point[i] += rest[i] / static_cast<float>(k_e8p_residual);
            }
            for (Index i = 0; i < std::min<Index>(8, q.cols() - first); ++i)
                values(row, first + i) = scale * point[static_cast<std::size_t>(i)];
        }
    });
    return values;
}

} // namespace

Matrix QuantizedMatrix::dequantize() const
{
    if (codebook == Codebook::E8P)
        return lattice_values(*this);
    Matrix values(codes.rows(), codes.cols());
    const Index width = grid.group_width(codes.cols());
    const bool plain = grid.levels != GridLevels::NormalFloat && !has_minimum(grid); // value = scale · code
    parallel_for(0, codes.rows(), [&](Index row) {
        for (Index first = 0; first < codes.cols(); first += width) {
            const Index group = first / width;
            const float scale = scales(row, group);
            const Index end = std::min(codes.cols(), first + width);
            if (plain) {
                const std::int16_t* code = codes.row(row).data();
                float* value = values.row(row).data();
                for (Index col = first; col < end; ++col)
                    value[col] = scale * static_cast<float>(code[col]);
                continue;
            }
            const float zero = zeros.size() > 0 ? zeros(row, group) : 0.0F;
            for (Index col = first; col < end; ++col)
                values(row, col) = grid_value(grid, scale, zero, codes(row, col));
        }
    });
    return values;
}

double QuantizedMatrix::bits_per_weight() const
{
    if (empty())
        return 0.0;
    if (codebook == Codebook::E8P) // codes and scale have 16 bits each
        return 16.0 * static_cast<double>(codes.size() + 1) / static_cast<double>(rows() * cols());
    return grid_bits_per_weight(grid, codes.rows(), codes.cols());
}

double grid_bits_per_weight(const ScalarGrid& grid, Index rows, Index cols)
{
    const double scales = grid.group < 0 ? 1.0 : static_cast<double>(rows * grid.groups(cols));
    return grid.bits + scales * bits_per_scale(grid) / static_cast<double>(std::max<Index>(1, rows * cols));
}

Index e8p_codes_per_row(Index columns, int bits) { return (columns + 7) / 8 * (bits == 4 ? 2 : 1); }

QuantizedMatrix lattice_matrix(Index rows, Index cols, int bits, float scale,
                               std::span<const std::uint16_t> codes)
{
    QuantizedMatrix result;
    result.codebook = Codebook::E8P;
    result.grid.bits = bits;
    result.grid.group = -1;
    result.grid.symmetric = true;
    result.columns = cols;
    result.codes.resize(rows, e8p_codes_per_row(cols, bits));
    for (Index i = 0; i < result.codes.size(); ++i)
        result.codes.data()[i] = std::bit_cast<std::int16_t>(codes[static_cast<std::size_t>(i)]);
    result.scales = Matrix::Constant(1, 1, scale);
    return result;
}

QuantizedMatrix to_quantized(const E8Matrix& lattice, int bits)
{
    return lattice_matrix(lattice.values.rows(), lattice.values.cols(), bits,
                          static_cast<float>(lattice.scales(0)), lattice.codes);
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
