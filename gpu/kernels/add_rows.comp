#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Sums of the columns of a matrix as pairs of floats, a thread a column of `chunk` rows; with LAST the rows are such
// pairs, all of them one chunk, and a single float is left of each.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 3) const bool LAST = false;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) writeonly buffer S { float sums[]; };
layout(push_constant) uniform Push { uint rows, cols, chunk, chunks, base_x, base_sums; } p;

#include "common/groups.glsl"
#include "common/two_float.glsl"

void main()
{
    for (uint i = thread_index(); i < p.chunks * p.cols; i += thread_count()) {
        const uint col = i % p.cols;
        const uint first = i / p.cols * p.chunk;
        const uint end = min(first + p.chunk, p.rows);
        vec2 sum = vec2(0.0);
        for (uint row = first; row < end; ++row) {
            const uint at = row * p.cols + col;
            if (LAST)
                sum = add_pair(sum, vec2(x[p.base_x + 2u * at], x[p.base_x + 2u * at + 1u]));
            else
                sum = add_float(sum, x[p.base_x + at]);
        }
        if (LAST) {
            sums[p.base_sums + col] = sum.x + sum.y;
        } else {
            sums[p.base_sums + 2u * i] = sum.x;
            sums[p.base_sums + 2u * i + 1u] = sum.y;
        }
    }
}
