// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/half.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace rankscope {
namespace {

template <class T>
T load(const std::byte* source, std::size_t index)
{
    T value;
    std::memcpy(&value, source + index * sizeof(T), sizeof(T));
    return value;
}

template <class T>
void store(std::byte* target, std::size_t index, T value)
{
    std::memcpy(target + index * sizeof(T), &value, sizeof(T));
}

template <class T, class Convert>
void decode_each(const std::byte* source, std::size_t count, float* target, Convert convert)
{
    for (std::size_t i = 0; i < count; ++i)
        target[i] = convert(load<T>(source, i));
}

template <class T>
void decode_plain(const std::byte* source, std::size_t count, float* target)
{
    decode_each<T>(source, count, target, [](T value) { return static_cast<float>(value); });
}

} // namespace

float half_to_float(std::uint16_t bits)
{
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t exponent = bits >> 10 & 0x1FU;
    const std::uint32_t mantissa = bits & 0x3FFU;
    if (exponent == 0x1F)
        return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
    if (exponent == 0) { // subnormal: exact in float32
        const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | (exponent + 112U) << 23 | mantissa << 13);
}

std::uint16_t float_to_half(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    if (magnitude > 0x7F800000U)
        return static_cast<std::uint16_t>(sign | 0x7E00U);
    if (magnitude >= 0x477FF000U) // rounds to 2^16 or beyond
        return static_cast<std::uint16_t>(sign | 0x7C00U);
    if (magnitude < 0x38800000U) { // result is subnormal: let the FPU round at 2^-24
        const float scaled = std::bit_cast<float>(magnitude) * 0x1.0p24F;
        return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyint(scaled)));
    }
    const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

float bfloat16_to_float(std::uint16_t bits)
{
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t float_to_bfloat16(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value))
        return static_cast<std::uint16_t>(bits >> 16 | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

float float8_e4m3_to_float(std::uint8_t bits)
{
    const int exponent = bits >> 3 & 0xF;
    const int mantissa = bits & 7;
    float magnitude = 0.0F;
    if (exponent == 0xF && mantissa == 7)
        magnitude = std::numeric_limits<float>::quiet_NaN();
    else if (exponent == 0)
        magnitude = std::ldexp(static_cast<float>(mantissa), -9);
    else
        magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    return (bits & 0x80U) != 0 ? -magnitude : magnitude;
}

float float8_e5m2_to_float(std::uint8_t bits) { return half_to_float(static_cast<std::uint16_t>(bits << 8)); }

float float8_e8m0_to_float(std::uint8_t bits)
{
    return bits == 0xFFU ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, int{bits} - 127);
}

void decode_to_float(DType dtype, const std::byte* source, std::size_t count, float* target)
{
    if (count == 0) // both pointers may be null then, which memcpy does not allow
        return;
    switch (dtype) {
    case DType::F32:
        std::memcpy(target, source, count * sizeof(float));
        break;
    case DType::F64:
        decode_plain<double>(source, count, target);
        break;
    case DType::F16:
        decode_each<std::uint16_t>(source, count, target, half_to_float);
        break;
    case DType::BF16:
        decode_each<std::uint16_t>(source, count, target, bfloat16_to_float);
        break;
    case DType::F8_E4M3:
        decode_each<std::uint8_t>(source, count, target, float8_e4m3_to_float);
        break;
    case DType::F8_E5M2:
        decode_each<std::uint8_t>(source, count, target, float8_e5m2_to_float);
        break;
    case DType::F8_E8M0:
        decode_each<std::uint8_t>(source, count, target, float8_e8m0_to_float);
        break;
    case DType::I64:
        decode_plain<std::int64_t>(source, count, target);
        break;
    case DType::I32:
        decode_plain<std::int32_t>(source, count, target);
        break;
    case DType::I16:
        decode_plain<std::int16_t>(source, count, target);
        break;
    case DType::I8:
        decode_plain<std::int8_t>(source, count, target);
        break;
    case DType::U64:
        decode_plain<std::uint64_t>(source, count, target);
        break;
    case DType::U32:
        decode_plain<std::uint32_t>(source, count, target);
        break;
    case DType::U16:
        decode_plain<std::uint16_t>(source, count, target);
        break;
    case DType::U8:
    case DType::Bool:
        decode_plain<std::uint8_t>(source, count, target);
        break;
    }
}

namespace {

/// Plain loops over one type each, so that the compiler makes vector code of them.
template <class T, class Encode>
void encode_each(const float* source, std::size_t count, std::byte* target, Encode encode)
{
    for (std::size_t i = 0; i < count; ++i)
        store(target, i, static_cast<T>(encode(source[i])));
}

} // namespace

void encode_from_float(DType dtype, const float* source, std::size_t count, std::byte* target)
{
    if (count == 0)
        return;
    switch (dtype) {
    case DType::F64:
        encode_each<double>(source, count, target, [](float value) { return static_cast<double>(value); });
        break;
    case DType::F16:
        encode_each<std::uint16_t>(source, count, target, float_to_half);
        break;
    case DType::BF16:
        encode_each<std::uint16_t>(source, count, target,
                                   [](float value) { return float_to_bfloat16(value); });
        break;
    default:
        std::memcpy(target, source, count * sizeof(float));
        break;
    }
}

bool is_encodable(DType dtype)
{
    return dtype == DType::F64 || dtype == DType::F32 || dtype == DType::F16 || dtype == DType::BF16;
}

} // namespace rankscope
