#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Sylvester butterflies over segments of `extent` elements, `stride` apart. A group holds BLOCK elements, whole
// segments, in shared memory; longer transforms take two passes, the second with a stride.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(constant_id = 3) const uint BLOCK = 1024;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(push_constant) uniform Push { uint segments, extent, stride, base; float scale; } p;

shared float block[BLOCK];

#include "common/groups.glsl"

uint address(uint first_segment, uint e)
{
    const uint segment = first_segment + e / p.extent;
    return p.base + (segment / p.stride) * (p.extent * p.stride) + segment % p.stride + (e % p.extent) * p.stride;
}

void main()
{
    const uint segments_per_group = BLOCK / p.extent;
    const uint first = group_index() * segments_per_group;
    if (first >= p.segments)
        return; // the same for the whole group
    const uint count = min(segments_per_group, p.segments - first) * p.extent;
    for (uint e = gl_LocalInvocationIndex; e < count; e += LANES)
        block[e] = x[address(first, e)];
    barrier();
    for (uint width = 1u; width < p.extent; width *= 2u) {
        for (uint pair = gl_LocalInvocationIndex; pair < count / 2u; pair += LANES) {
            const uint i = (pair / width) * (2u * width) + pair % width;
            const float upper = block[i];
            const float lower = block[i + width];
            block[i] = upper + lower;
            block[i + width] = upper - lower;
        }
        barrier();
    }
    for (uint e = gl_LocalInvocationIndex; e < count; e += LANES)
        x[address(first, e)] = block[e] * p.scale;
}
