#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Largest |x| of each group, as bits: without the sign they order like the numbers, with infinity and NaN on top, and
// no compiler may assume that they do not occur.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { uint x[]; };
layout(std430, set = 0, binding = 1) writeonly buffer M { uint largest[]; };
layout(push_constant) uniform Push { uint count, first_group; } p;

shared uint most[LANES];

#include "common/groups.glsl"

void main()
{
    uint value = 0u;
    for (uint i = thread_index(); i < p.count; i += thread_count())
        value = max(value, x[i] & 0x7FFFFFFFu);
    const uint lane = gl_LocalInvocationIndex;
    most[lane] = value;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            most[lane] = max(most[lane], most[lane + width]);
        barrier();
    }
    if (lane == 0u)
        largest[p.first_group + group_index()] = most[0];
}
