#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Scale and zero point of one group of weights a work group, from its range widened to hold 0.
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
    uint symmetric;
    float levels;           // asymmetric: the codes' span
    float symmetric_levels; // symmetric: scale = max|w| / symmetric_levels
} p;

shared float lows[LANES];
shared float highs[LANES];

#include "common/groups.glsl"

void main()
{
    const uint row = group_index() / p.groups;
    if (row >= p.rows)
        return; // the same for the whole work group
    const uint group = group_index() % p.groups;
    const uint lane = gl_LocalInvocationIndex;
    const uint end = min((group + 1u) * p.width, p.cols);
    float low = 0.0;
    float high = 0.0;
    for (uint j = group * p.width + lane; j < end; j += LANES) {
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
    if (lane != 0u)
        return;
    const uint at = row * p.groups + group;
    if (p.symmetric != 0u) {
        precise float scale = max(-lows[0], highs[0]) / p.symmetric_levels;
        scales[p.base_scales + at] = max(scale, 1e-8);
        zeros[p.base_zeros + at] = 0.0;
    } else {
        precise float range = highs[0] - lows[0];
        precise float scale = max(range / p.levels, 1e-8);
        precise float steps = lows[0] / scale;
        scales[p.base_scales + at] = scale;
        zeros[p.base_zeros + at] = clamp(-roundEven(steps), 0.0, p.levels);
    }
}
