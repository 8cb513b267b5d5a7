#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Σ a ⊙ b of each group as a pair of floats; the host adds the groups' sums in float64.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer A { float a[]; };
layout(std430, set = 0, binding = 1) readonly buffer B { float b[]; };
layout(std430, set = 0, binding = 2) writeonly buffer S { float partial[]; };
layout(push_constant) uniform Push { uint count, first_group; } p;

#include "common/groups.glsl"
#include "common/two_float.glsl"
#include "common/reduce_pair.glsl"

// The product and its rounding error (Dekker's splitting: needs no fused multiply-add).
vec2 two_product(float x, float y)
{
    precise float product = x * y;
    precise float x_scaled = x * 4097.0;
    precise float x_high = x_scaled - (x_scaled - x);
    precise float x_low = x - x_high;
    precise float y_scaled = y * 4097.0;
    precise float y_high = y_scaled - (y_scaled - y);
    precise float y_low = y - y_high;
    precise float error = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low;
    return vec2(product, error);
}

void main()
{
    vec2 sum = vec2(0.0);
    for (uint i = thread_index(); i < p.count; i += thread_count())
        sum = add_pair(sum, two_product(a[i], b[i]));
    sum = reduce_pair(sum);
    if (gl_LocalInvocationIndex == 0u) {
        const uint at = 2u * (p.first_group + group_index());
        partial[at] = sum.x;
        partial[at + 1u] = sum.y;
    }
}
