#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Gradient of the scores in place of that of the weights: P ⊙ (dP − Σ P ⊙ dP) · scale, and where scores are capped times
// the cap's slope; a group a query of one head.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 64;
layout(std430, set = 0, binding = 0) readonly buffer P { float weights[]; };
layout(std430, set = 0, binding = 1) readonly buffer S { float scores[]; };
layout(std430, set = 0, binding = 2) buffer D { float slope[]; };
layout(push_constant) uniform Push { uint rows, keys; float scale, score_cap; } p;

#include "common/groups.glsl"
#include "common/reduce.glsl"
#include "common/soft_cap.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint from = row * p.keys;
    float sum = 0.0;
    for (uint j = gl_LocalInvocationIndex; j < p.keys; j += LANES)
        sum += weights[from + j] * slope[from + j];
    const float mean = reduce_sum(sum);
    for (uint j = gl_LocalInvocationIndex; j < p.keys; j += LANES) {
        const uint i = from + j;
        float factor = p.scale;
        if (p.score_cap > 0.0) {
            const float bent = soft_cap(scores[i], p.score_cap) / p.score_cap;
            factor *= 1.0 - bent * bent;
        }
        slope[i] = weights[i] * (slope[i] - mean) * factor;
    }
}
