#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Copies the lower triangle of a square matrix to the upper one: upper holds rows row_origin …, lower the rows that
// are the columns of this part, col_origin …. Both are parts of one matrix; no element is both read and written.
layout(local_size_x = 16, local_size_y = 8) in;

layout(std430, set = 0, binding = 0) buffer Upper { float upper[]; };
layout(std430, set = 0, binding = 1) readonly buffer Lower { float lower[]; };
layout(push_constant) uniform Push
{
    uint rows, cols;
    uint order;
    uint base_upper, base_lower;
    uint row_origin, col_origin;
} p;

shared float tile[16][17];

void main()
{
    const uint row0 = gl_WorkGroupID.y * 16u;
    const uint col0 = gl_WorkGroupID.x * 16u;
    const uint x = gl_LocalInvocationID.x;
    for (uint y = gl_LocalInvocationID.y; y < 16u; y += 8u) {
        const uint row = row0 + x;
        const uint col = col0 + y;
        if (row < p.rows && col < p.cols && p.col_origin + col > p.row_origin + row)
            tile[y][x] = lower[p.base_lower + col * p.order + p.row_origin + row];
    }
    barrier();
    for (uint y = gl_LocalInvocationID.y; y < 16u; y += 8u) {
        const uint row = row0 + y;
        const uint col = col0 + x;
        if (row < p.rows && col < p.cols && p.col_origin + col > p.row_origin + row)
            upper[p.base_upper + row * p.order + p.col_origin + col] = tile[x][y];
    }
}
