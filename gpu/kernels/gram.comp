#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// The lower triangle of alpha · x·xᵀ (or xᵀ·x) + beta · c; mirror.comp copies it to the upper one, so that the result is
// exactly symmetric. a and b are two parts of x. Sums of 256 terms are added up as pairs of floats. With PAIR the pair
// itself is written, c high and low, for a caller that goes on in float64.
#extension GL_GOOGLE_include_directive : require

layout(std430, set = 0, binding = 0) readonly buffer A { float a[]; };
layout(std430, set = 0, binding = 1) readonly buffer B { float b[]; };
layout(std430, set = 0, binding = 2) buffer C { float c[]; };
layout(std430, set = 0, binding = 3) buffer L { float low[]; };
layout(push_constant) uniform Push
{
    uint m, n, k_end;
    uint lda, ldb, ldc;
    uint base_a, base_b, base_c;
    uint flags; // 4: c (and low) hold an earlier part of the sum, to be continued
    float alpha, beta;
    uint row_origin, col_origin; // of this part within the whole matrix
} p;

layout(constant_id = 6) const bool PAIR = false;

float a_at(uint i) { return a[i]; }
float b_at(uint i) { return b[i]; }

#include "common/product.glsl"
#include "common/two_float.glsl"

void main()
{
    const uint row0 = gl_WorkGroupID.y * TILE_M;
    const uint col0 = gl_WorkGroupID.x * TILE_N;
    if (p.row_origin + row0 + TILE_M - 1 < p.col_origin + col0)
        return; // wholly above the diagonal: the same for the whole group
    vec2 total[MICRO][MICRO];
    float sums[MICRO][MICRO];
    for (uint i = 0; i < MICRO; ++i)
        for (uint j = 0; j < MICRO; ++j)
            total[i][j] = vec2(0.0);

    for (uint chunk = 0; chunk < p.k_end; chunk += CHUNK) {
        for (uint i = 0; i < MICRO; ++i)
            for (uint j = 0; j < MICRO; ++j)
                sums[i][j] = 0.0;
        const uint end = min(chunk + CHUNK, p.k_end);
        for (uint k0 = chunk; k0 < end; k0 += DEPTH) {
            load_tiles(row0, col0, k0);
            barrier();
            multiply_tiles(sums);
            barrier();
        }
        for (uint i = 0; i < MICRO; ++i)
            for (uint j = 0; j < MICRO; ++j)
                total[i][j] = add_float(total[i][j], sums[i][j]);
    }

    for (uint i = 0; i < MICRO; ++i) {
        const uint row = row0 + gl_LocalInvocationID.y + THREADS_Y * i;
        for (uint j = 0; j < MICRO; ++j) {
            const uint col = col0 + gl_LocalInvocationID.x + THREADS_X * j;
            if (row >= p.m || col >= p.n || p.row_origin + row < p.col_origin + col)
                continue;
            const uint at = p.base_c + row * p.ldc + col;
            vec2 value = total[i][j];
            if (PAIR) {
                if ((p.flags & 4u) != 0u)
                    value = add_pair(vec2(c[at], low[at]), value);
                c[at] = value.x;
                low[at] = value.y;
            } else {
                float single = p.alpha * (value.x + value.y);
                if (p.beta != 0.0)
                    single += p.beta * c[at];
                c[at] = single;
            }
        }
    }
}
