// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

namespace rankscope {

/// MXINT, whole numbers with a shared exponent (OCP microscaling formats; methods-joint §1.3): a block of
/// consecutive inputs has one exponent e = ⌊log₂ max|x|⌋, each weight a sign and bits − 1 bits of magnitude
/// in steps of 2^(e − (bits − 2)). The step for a block's largest magnitude; a block of zeros has e = 0.
/// Never below the least normal float.
float mx_int_step(float largest, int bits);
/// |code| ≤ 2^(bits − 1) − 1: what rounds beyond saturates.
constexpr int mx_int_largest_code(int bits) { return (1 << (bits - 1)) - 1; }
/// Bits of the shared exponent.
inline constexpr int k_mx_int_exponent_bits = 8;

} // namespace rankscope
