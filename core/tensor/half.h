// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/dtype.h"

#include <cstddef>
#include <cstdint>

namespace rankscope {

float half_to_float(std::uint16_t bits);  ///< IEEE binary16
std::uint16_t float_to_half(float value); ///< round to nearest even; overflow to infinity
float bfloat16_to_float(std::uint16_t bits);
std::uint16_t float_to_bfloat16(float value);  ///< round to nearest even; NaN stays NaN
float float8_e4m3_to_float(std::uint8_t bits); ///< OCP E4M3 (no infinity; 0x7F is NaN)
float float8_e5m2_to_float(std::uint8_t bits);
float float8_e8m0_to_float(std::uint8_t bits); ///< 2^(bits − 127); 0xFF is NaN

/// Decodes `count` elements of `dtype` at `source` (any alignment, little endian) to float32.
void decode_to_float(DType dtype, const std::byte* source, std::size_t count, float* target);
/// The way back for F32, F16, BF16 and F64 (others are not encoded: the caller checks is_encodable).
void encode_from_float(DType dtype, const float* source, std::size_t count, std::byte* target);
bool is_encodable(DType dtype);

} // namespace rankscope
