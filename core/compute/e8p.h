// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <array>
#include <cstdint>
#include <vector>

namespace rankscope {

/// QuIP#'s E8P codebook (arXiv 2402.04396; methods-joint §1.4): 65,536 points of E8 ± ¼, two bits a weight
/// for eight weights at a time. High byte of a code: one of 256 patterns of absolute values; low byte: signs
/// and shift.
using E8Point = std::array<float, 8>;

/// Divides an RMS to give the scale at which a Gaussian suits the codebook best: s = RMS / 1.03.
inline constexpr double k_e8p_scale = 1.03;
/// Factor between the two stages of the 4-bit residual code.
inline constexpr double k_e8p_residual = 3.45;

E8Point e8p_decode(std::uint16_t code);

/// Points that are looked up together: coordinate by coordinate, so that each fills a vector register.
inline constexpr int k_e8_lanes = 16;
struct E8Lanes {
    float coordinate[8][k_e8_lanes];
};
/// The codewords nearest to sixteen points in Euclidean norm, exactly (see e8p_nearest).
void e8p_nearest_lanes(const E8Lanes& points, E8Lanes& values, std::uint16_t (&codes)[k_e8_lanes]);

/// The same with 2 or 4 bits; codes[1] is the second stage's with 4 bits.
struct E8NearestLanes {
    E8Lanes values;
    std::uint16_t codes[2][k_e8_lanes];
};
void e8p_nearest_lanes(const E8Lanes& points, int bits, E8NearestLanes& nearest);

struct E8Nearest {
    E8Point value;
    std::uint16_t code;
};
/// The codeword nearest to x in Euclidean norm, exactly: seven permutation classes and 29 single patterns for
/// each of the two shifts instead of all points.
E8Nearest e8p_nearest(const E8Point& x);

struct E8Nearest4 {
    E8Point value;
    std::array<std::uint16_t, 2> codes;
};
/// Four bits: the nearest codeword, and the nearest one to 3.45 times what is left.
E8Nearest4 e8p_nearest_4bit(const E8Point& x);

/// A matrix rounded to the lattice, groups of eight along a row (a shorter last group is padded with zeros),
/// one scale for the matrix or, `per_row`, for each row. value = scale · codeword.
struct E8Matrix {
    Matrix values;
    std::vector<std::uint16_t> codes; ///< rows × groups (two a group with 4 bits), row-major
    VectorD scales;                   ///< 1 or rows
};
/// bits: 2 or 4. scale_divisor divides the RMS (1.03 for Q, 1 for factors). A zero matrix or row has scale 1.
E8Matrix e8p_round(const Matrix& w, int bits, double scale_divisor, bool per_row);

} // namespace rankscope
