#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Every row of x, seen as p × q, from the left times the small factor: x[a][j] = Σ_b factor[b][a] · x[b][j]. A group
// owns `width` neighbouring j of one row and holds them in shared memory.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(constant_id = 3) const uint BLOCK = 4096;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer F { float factor[]; }; // order × order, transposed
layout(push_constant) uniform Push { uint rows, order, q, width, tiles, base; } p;

shared float block[BLOCK];

#include "common/groups.glsl"

void main()
{
    const uint row = group_index() / p.tiles;
    if (row >= p.rows)
        return; // the same for the whole group
    const uint j0 = (group_index() % p.tiles) * p.width;
    const uint columns = min(p.width, p.q - j0);
    const uint origin = p.base + row * p.order * p.q + j0;
    for (uint e = gl_LocalInvocationIndex; e < p.order * columns; e += LANES)
        block[e] = x[origin + (e / columns) * p.q + e % columns];
    barrier();
    for (uint e = gl_LocalInvocationIndex; e < p.order * columns; e += LANES) {
        const uint to = e / columns;
        const uint j = e % columns;
        float sum = 0.0;
        for (uint from = 0u; from < p.order; ++from)
            sum += factor[from * p.order + to] * block[from * columns + j];
        x[origin + to * p.q + j] = sum;
    }
}
