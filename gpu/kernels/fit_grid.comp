#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Scale and zero point of one group of weights a work group, from its range widened to hold 0. A clip search tries
// narrower ranges, a candidate a thread, and takes the first whose Σ |q(w) − w|^norm is the least.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 64;
layout(std430, set = 0, binding = 0) readonly buffer W { float w[]; };
layout(std430, set = 0, binding = 1) writeonly buffer S { float scales[]; };
layout(std430, set = 0, binding = 2) writeonly buffer Z { float zeros[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, width, groups;
    uint base_w, base_scales, base_zeros;
    uint symmetric; // 0 no, 1 yes; 2: the largest magnitude is the scale, 3: a power of two below it (MXINT)
    float levels;           // the codes' span
    float symmetric_levels; // symmetric: scale = max|w| / symmetric_levels; MXINT: 2^(bits − 2)
    uint candidates;        // 0: no search
    uint by_grid;           // 0: the range shrinks by steps; 1: widths from 0 up, with every zero point
    float steps, norm;
} p;

const uint CHUNK = 512;

shared float lows[LANES];
shared float highs[LANES];
shared uint places[LANES];
shared float chunk[CHUNK];

#include "common/grid.glsl"
#include "common/groups.glsl"
#include "common/two_float.glsl"

struct Fit { float scale, zero; };

// 2^e / p.symmetric_levels with e = ⌊log₂ largest⌋, 0 for a group of zeros; never below the least normal number.
float shared_step(float largest)
{
    const uint bits = floatBitsToUint(largest);
    const float power = bits == 0u ? 1.0 : uintBitsToFloat(bits & 0x7F800000u);
    precise float step = power / p.symmetric_levels;
    return max(step, 1.17549435e-38);
}

Fit fit_of_range(float low, float high)
{
    if (p.symmetric > 1u) {
        const float largest = max(-low, high);
        return Fit(p.symmetric == 3u ? shared_step(largest) : largest > 0.0 ? largest : 1.0, 0.0);
    }
    if (p.symmetric != 0u) {
        precise float scale = max(-low, high) / p.symmetric_levels;
        return Fit(max(scale, 1e-8), 0.0);
    }
    precise float range = high - low;
    precise float scale = max(range / p.levels, 1e-8);
    precise float steps = low / scale;
    return Fit(scale, clamp(-roundEven(steps), 0.0, p.levels));
}

Fit fit_of_candidate(uint candidate, float low, float high)
{
    if (p.by_grid == 0u) {
        precise float part = 1.0 - float(candidate) / p.steps;
        return fit_of_range(part * low, part * high);
    }
    if (p.symmetric != 0u) {
        precise float threshold = max(-low, high) / p.steps * float(candidate + 1u);
        return fit_of_range(-threshold, threshold);
    }
    const uint zeros_of_width = uint(p.levels) + 1u;
    precise float width = (high - low) / p.steps * float(candidate / zeros_of_width + 1u);
    precise float shift = float(candidate % zeros_of_width) * (width / p.levels);
    return fit_of_range(min(-shift, 0.0), max(width - shift, 0.0));
}

bool less(vec2 a, vec2 b) { return a.x < b.x || (a.x == b.x && a.y < b.y); }

// Σ (|q(w) − w| / range)^norm of the group's weights [begin, end). All lanes come here together.
vec2 rounding_error(Fit fit, uint row, uint begin, uint end, float inverse_range)
{
    const float lowest = p.symmetric != 0u ? -0.5 * (p.levels + 1.0) : -fit.zero;
    vec2 sum = vec2(0.0);
    for (uint first = begin; first < end; first += CHUNK) {
        const uint count = min(CHUNK, end - first);
        barrier();
        for (uint j = gl_LocalInvocationIndex; j < count; j += LANES)
            chunk[j] = w[p.base_w + row * p.cols + first + j];
        barrier();
        for (uint j = 0; j < count; ++j) {
            precise float value = fit.scale * grid_code(chunk[j], fit.scale, lowest, p.levels);
            const float missed = abs(value - chunk[j]) * inverse_range;
            // Only what goes beyond the square is left to the device's logarithm, which is good to some 1e-5.
            const float beyond = missed > 0.0 ? exp2((p.norm - 2.0) * log2(missed)) : 0.0;
            sum = add_float(sum, missed * missed * beyond);
        }
    }
    return two_sum(sum.x, sum.y);
}

// The first best candidate; in the result of lane 0.
uint search(uint row, uint begin, uint end, float low, float high)
{
    const uint lane = gl_LocalInvocationIndex;
    const float inverse_range = 1.0 / (high - low);
    vec2 least = vec2(3e38, 0.0);
    uint best = 0u;
    for (uint first = 0; first < p.candidates; first += LANES) {
        const uint candidate = first + lane;
        const vec2 error =
            rounding_error(fit_of_candidate(min(candidate, p.candidates - 1u), low, high), row, begin, end, inverse_range);
        if (candidate < p.candidates && less(error, least)) {
            least = error;
            best = candidate;
        }
    }
    barrier();
    lows[lane] = least.x;
    highs[lane] = least.y;
    places[lane] = best;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            const vec2 own = vec2(lows[lane], highs[lane]);
            const vec2 other = vec2(lows[lane + width], highs[lane + width]);
            if (less(other, own) || (other == own && places[lane + width] < places[lane])) {
                lows[lane] = other.x;
                highs[lane] = other.y;
                places[lane] = places[lane + width];
            }
        }
        barrier();
    }
    return places[0];
}

void main()
{
    const uint row = group_index() / p.groups;
    if (row >= p.rows)
        return; // the same for the whole work group
    const uint group = group_index() % p.groups;
    const uint lane = gl_LocalInvocationIndex;
    const uint begin = group * p.width;
    const uint end = min(begin + p.width, p.cols);
    float low = 0.0;
    float high = 0.0;
    for (uint j = begin + lane; j < end; j += LANES) {
        const float weight = w[p.base_w + row * p.cols + j];
        if (weight < low)
            low = weight;
        if (weight > high)
            high = weight;
    }
    lows[lane] = low;
    highs[lane] = high;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            lows[lane] = min(lows[lane], lows[lane + width]);
            highs[lane] = max(highs[lane], highs[lane + width]);
        }
        barrier();
    }
    low = lows[0];
    high = highs[0];
    barrier();
    Fit fit = fit_of_range(low, high);
    // A range of 1e37 and more would overflow, one of 1e-37 has no inverse: neither is searched.
    if (p.candidates > 0u && high - low > 1e-37 && high - low < 1e37)
        fit = fit_of_candidate(search(row, begin, end, low, high), low, high);
    if (lane == 0u) {
        scales[p.base_scales + row * p.groups + group] = fit.scale;
        zeros[p.base_zeros + row * p.groups + group] = fit.zero;
    }
}
