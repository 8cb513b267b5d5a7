// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"
#include "core/compute/uniform_grid.h"
#include "core/tensor/matrix.h"

#include "core/compute/e8p.h"

#include <cstdint>
#include <span>

namespace rankscope {

/// What the codes of a matrix name: levels of a scalar grid (UniformGrid::levels says which), or points of
/// the E8P lattice, eight weights a point.
enum class Codebook : std::uint8_t { Uniform, E8P };

/// Bits per weight of a scalar grid: codes, scales and zero points, one for each group that a row really has.
double grid_bits_per_weight(const ScalarGrid& grid, Index rows, Index cols);

/// A quantized matrix in host memory. Without codes it stands for a zero matrix, as methods that keep only a
/// low-rank part leave it.
/// Scalar: codes with the zero point subtracted, one scale and zero per row and group (with one scale per
/// matrix it is repeated in every row). E8P: the bits of the 16-bit lattice codes, one (2 bits) or two (4
/// bits) for each eight inputs of a row, and one scale; of the grid only `bits` counts.
struct QuantizedMatrix {
    Codebook codebook = Codebook::Uniform;
    UniformGrid grid;
    CodeMatrix codes;  ///< out × in; E8P: out × codes of a row
    Matrix scales;     ///< out × groups; E8P: 1 × 1
    Matrix zeros;      ///< out × groups, 0 when symmetric; E8P: empty
    Index columns = 0; ///< inputs, E8P only

    bool empty() const { return codes.size() == 0; }
    Index rows() const { return codes.rows(); }
    Index cols() const { return codebook == Codebook::E8P ? columns : codes.cols(); }
    Matrix dequantize() const; ///< scales ⊙ level(codes); scale · lattice point
    /// Exact storage in bits per weight: b + 16/g (symmetric, NormalFloat), b + (16 + b)/g or b + 8/g
    /// (MXINT), with the true number of groups; E8P: whole codes and one scale of 16 bits.
    double bits_per_weight() const;
};

/// Codes that a row of `columns` inputs takes in the E8P codebook.
Index e8p_codes_per_row(Index columns, int bits);
QuantizedMatrix to_quantized(const E8Matrix& lattice, int bits);
/// From the codes of a matrix on the lattice, row by row, with one scale.
QuantizedMatrix lattice_matrix(Index rows, Index cols, int bits, float scale,
                               std::span<const std::uint16_t> codes);
QuantizedMatrix to_host(const RoundedBuffers& rounded, const GridBuffers& grid, Backend& backend);

} // namespace rankscope
