#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// target = sourceᵀ, tiles of 16 × 16 through shared memory so that both sides are read and written along rows. Bound
// are rows of either: of the source those of this part, of the target those that its columns become.
layout(local_size_x = 16, local_size_y = 8) in;

layout(std430, set = 0, binding = 0) readonly buffer S { float source[]; };
layout(std430, set = 0, binding = 1) writeonly buffer T { float target[]; };
layout(push_constant) uniform Push
{
    uint rows, cols;                 // of the part of the source
    uint source_stride, target_stride;
    uint base_source, base_target;   // the part's first element, where it goes
} p;

shared float tile[16][17];

void main()
{
    const uint row0 = gl_WorkGroupID.y * 16u;
    const uint col0 = gl_WorkGroupID.x * 16u;
    const uint x = gl_LocalInvocationID.x;
    for (uint y = gl_LocalInvocationID.y; y < 16u; y += 8u) {
        if (row0 + y < p.rows && col0 + x < p.cols)
            tile[y][x] = source[p.base_source + (row0 + y) * p.source_stride + col0 + x];
    }
    barrier();
    for (uint y = gl_LocalInvocationID.y; y < 16u; y += 8u) {
        if (row0 + x < p.rows && col0 + y < p.cols)
            target[p.base_target + (col0 + y) * p.target_stride + row0 + x] = tile[x][y];
    }
}
