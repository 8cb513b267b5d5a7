// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <array>
#include <optional>
#include <span>

namespace rankscope {

// The grids of GGUF's K types (Q2_K … Q6_K): blocks of 256 consecutive inputs, in which groups of 16 or 32
// share a scale. The scales of a block are small whole numbers times one step in F16, and so are the minima
// that 2, 4 and 5 bits have: weight = scale · code − minimum, codes unsigned; 3 and 6 bits: weight = scale ·
// code. All products are exact in float32, so that a matrix on such a grid goes into the file as it is.

inline constexpr Index k_kquant_block = 256;
inline constexpr int k_least_kquant_bits = 2;
inline constexpr int k_most_kquant_bits = 6;

/// Inputs that share a scale.
constexpr Index kquant_group(int bits) { return bits == 4 || bits == 5 ? 32 : 16; }
/// Whether groups have a minimum beside their scale.
constexpr bool kquant_has_minimum(int bits) { return bits != 3 && bits != 6; }
/// Largest whole number that a scale, or a minimum, is of its step; scales without minima have a sign.
constexpr int kquant_scale_limit(int bits) { return bits == 2 ? 15 : bits == 3 ? 31 : bits == 6 ? 127 : 63; }
/// Bits that a group's scale and minimum take, with its part of the block's steps: 2.625, 3.4375, 4.5, 5.5
/// and 6.5625 bits a weight.
constexpr int kquant_bits_per_group(int bits) { return bits == 2 ? 10 : bits == 3 ? 7 : bits == 6 ? 9 : 16; }

/// Scales (never 0; negative ones with 3 and 6 bits only) and minima (0 without) of the groups of one block:
/// each group by least squares over several ranges, then all rounded to multiples of their step. A shorter
/// block has fewer groups. Weights that are not finite give a grid of no use, but a finite one.
void fit_kquant(std::span<const float> block, int bits, std::span<float> scales, std::span<float> minima);

/// The scales and minima of a block, taken apart again.
struct KquantParts {
    float step = 0.0F; ///< F16 holds it
    float minimum_step = 0.0F;
    std::array<int, 16> scales{};
    std::array<int, 16> minima{};
};
/// None: these are not whole multiples, within the limit, of a step that F16 holds.
std::optional<KquantParts> kquant_parts(std::span<const float> scales, std::span<const float> minima,
                                        int bits);

} // namespace rankscope
