#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Scale and lowest code, or minimum, of every group side by side, for kernels that have no binding left for two matrices.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer S { float scales[]; };
layout(std430, set = 0, binding = 1) readonly buffer Z { float zeros[]; };
layout(std430, set = 0, binding = 2) writeonly buffer G { float grid[]; };
layout(push_constant) uniform Push
{
    uint count, base_grid;
    float lowest; // of every group, to which `sign` times its zero is added
    float sign;
} p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        grid[p.base_grid + 2u * i] = scales[i];
        grid[p.base_grid + 2u * i + 1u] = p.lowest + p.sign * zeros[i];
    }
}
