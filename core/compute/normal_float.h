// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>

namespace rankscope {

/// Bits that the NormalFloat grid has: NF2, NF3, NF4.
inline constexpr int k_least_normal_float_bits = 2;
inline constexpr int k_most_normal_float_bits = 4;

/// The 2^bits levels of NormalFloat, rising, in [−1, 1], with 0 among them (QLoRA, arXiv 2305.14314;
/// methods-joint §1.2): 2^(b−1) quantiles of the normal distribution above zero, 2^(b−1) − 1 below, divided
/// by the largest. Code c stands for level c + normal_float_zero(bits).
std::span<const float> normal_float_levels(int bits);
/// Place of the level 0; codes run from −normal_float_zero(bits) to 2^(b−1).
constexpr int normal_float_zero(int bits) { return (1 << (bits - 1)) - 1; }

/// What divides a block: its largest magnitude, 1 for a block of zeros.
float normal_float_scale(float largest);

/// Place of the level nearest to x, the lower one on a tie.
int nearest_normal_float(float x, int bits);

} // namespace rankscope
