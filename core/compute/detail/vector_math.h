// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/multiarch.h"

#include <bit>
#include <cstdint>

namespace rankscope::detail {

// Branch-free functions that compilers turn into vector code on every instruction set (libm calls stay
// scalar).

/// Half to even, for |x| < 2^22: adding 1.5·2^23 leaves no fraction bits, so the addition itself rounds.
RANKSCOPE_INLINE float round_even(float x)
{
    constexpr float magic = 12582912.0F;
    return (x + magic) - magic;
}

/// The same for |x| < 2^51.
RANKSCOPE_INLINE double round_even(double x)
{
    constexpr double magic = 6755399441055744.0;
    return (x + magic) - magic;
}

/// |x| without a branch.
RANKSCOPE_INLINE float magnitude(float x)
{
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU);
}
RANKSCOPE_INLINE double magnitude(double x)
{
    return std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) & 0x7FFFFFFFFFFFFFFFULL);
}

/// Sum of terms in an order that is the same on every instruction set: eight running sums, then pairwise.
template <class Sum, class T>
RANKSCOPE_INLINE Sum lane_sum(const T* terms, std::int64_t count)
{
    Sum sums[8] = {};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; ++lane)
            sums[lane] += static_cast<Sum>(terms[i + lane]);
    }
    for (int lane = 0; i < count; ++i, ++lane)
        sums[lane] += static_cast<Sum>(terms[i]);
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

/// Largest of count ≥ 1 elements.
template <class T>
RANKSCOPE_INLINE T lane_max(const T* x, std::int64_t count)
{
    T most[16];
    for (int lane = 0; lane < 16; ++lane)
        most[lane] = x[0];
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        for (int lane = 0; lane < 16; ++lane)
            most[lane] = x[i + lane] > most[lane] ? x[i + lane] : most[lane];
    }
    for (int lane = 0; i < count; ++i, ++lane)
        most[lane] = x[i] > most[lane] ? x[i] : most[lane];
    for (int lane = 1; lane < 16; ++lane)
        most[0] = most[lane] > most[0] ? most[lane] : most[0];
    return most[0];
}

/// Integer code of x on a grid with integer bounds: clamping first gives the same as rounding first, and
/// keeps the argument small. NaN becomes `low`.
template <class T>
RANKSCOPE_INLINE T grid_code(T x, T low, T high)
{
    const T above = x > low ? x : low;
    return round_even(above < high ? above : high);
}

/// e^x with a relative error below 2e-7; 0 below −87, NaN stays NaN.
RANKSCOPE_INLINE float exp_float(float x)
{
    constexpr float magic = 12582912.0F;
    float t = x > 88.0F ? 88.0F : x;
    t = t < -87.0F ? -87.0F : t;
    const float shifted = t * 1.44269504F + magic;
    const float n = shifted - magic;
    const float r = (t - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    const std::uint32_t exponent =
        std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(magic);
    const float result = std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (exponent << 23));
    return x < -87.0F ? 0.0F : result;
}

/// e^x with a relative error below 1e-14; 0 below −700, NaN stays NaN.
RANKSCOPE_INLINE double exp_double(double x)
{
    constexpr double magic = 6755399441055744.0;
    double t = x > 700.0 ? 700.0 : x;
    t = t < -700.0 ? -700.0 : t;
    const double shifted = t * 1.4426950408889634 + magic;
    const double n = shifted - magic;
    const double r = (t - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const std::uint64_t exponent =
        std::bit_cast<std::uint64_t>(shifted) - std::bit_cast<std::uint64_t>(magic);
    const double result = std::bit_cast<double>(std::bit_cast<std::uint64_t>(p) + (exponent << 52));
    return x < -700.0 ? 0.0 : result;
}

/// log₂ x for x > 0, absolute error below 1e-12; about −1023 for 0 and subnormal x.
RANKSCOPE_INLINE double log2_double(double x)
{
    // x = 2^e · m with m in [√½, √2); ln m = 2·atanh((m − 1)/(m + 1)).
    constexpr std::uint64_t root_half = 0x3FE6A09E667F3BCDULL;
    constexpr std::uint64_t one = 0x3FF0000000000000ULL;
    constexpr std::uint64_t two_to_52 = 0x4330000000000000ULL;
    const std::uint64_t moved = std::bit_cast<std::uint64_t>(x) - root_half;
    const std::uint64_t biased = (moved + one) >> 52;
    const double e = std::bit_cast<double>(two_to_52 | biased) - (4503599627370496.0 + 1023.0);
    const double m = std::bit_cast<double>((moved & 0x000FFFFFFFFFFFFFULL) + root_half);
    const double s = (m - 1.0) / (m + 1.0);
    const double z = s * s;
    double p = 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z + 1.0;
    return e + 2.885390081777926815 * s * p;
}

/// x^power within 1e-4, for x in [1e-9, 1e6] and power in (0, 8]: to tell good candidates from hopeless ones.
RANKSCOPE_INLINE float power_estimate(float x, float power)
{
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    const float m = std::bit_cast<float>((bits & 0x007FFFFFU) | 0x3F800000U) - 1.0F;
    float p = 0.0430049578F;
    p = p * m - 0.187488605F;
    p = p * m + 0.409470299F;
    p = p * m - 0.706486449F;
    p = p * m + 1.44149241F;
    p = p * m + 1.65146709e-5F;
    const float log2 = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 127) + p;

    constexpr float magic = 12582912.0F;
    float t = power * log2;
    t = t < -125.0F ? -125.0F : t;
    t = t > 125.0F ? 125.0F : t;
    const float shifted = t + magic;
    const float r = t - (shifted - magic);
    float e = 0.00966636852F;
    e = e * r + 0.0559219758F;
    e = e * r + 0.24022349F;
    e = e * r + 0.693121045F;
    e = e * r + 1.0F;
    const std::uint32_t exponent =
        std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(magic);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(e) + (exponent << 23));
}

/// x^power for x ≥ 0 and power > 0, relative error below 1e-11.
RANKSCOPE_INLINE double power_double(double x, double power)
{
    return exp_double(power * log2_double(x) * 0.693147180559945309417);
}

} // namespace rankscope::detail
