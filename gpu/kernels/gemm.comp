#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// c = alpha · op(a) · op(b) + beta · c.
#extension GL_GOOGLE_include_directive : require

layout(std430, set = 0, binding = 0) readonly buffer A { float a[]; };
layout(std430, set = 0, binding = 1) readonly buffer B { float b[]; };
layout(std430, set = 0, binding = 2) buffer C { float c[]; };
layout(push_constant) uniform Push
{
    uint m, n, k_end;
    uint lda, ldb, ldc;
    uint base_a, base_b, base_c;
    uint flags;
    float alpha, beta;
} p;

#include "common/product.glsl"

void main()
{
    const uint row0 = gl_WorkGroupID.y * TILE_M;
    const uint col0 = gl_WorkGroupID.x * TILE_N;
    float total[MICRO][MICRO];
    float sums[MICRO][MICRO];
    for (uint i = 0; i < MICRO; ++i)
        for (uint j = 0; j < MICRO; ++j)
            total[i][j] = 0.0;

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
                total[i][j] += sums[i][j];
    }

    for (uint i = 0; i < MICRO; ++i) {
        const uint row = row0 + gl_LocalInvocationID.y + THREADS_Y * i;
        for (uint j = 0; j < MICRO; ++j) {
            const uint col = col0 + gl_LocalInvocationID.x + THREADS_X * j;
            if (row < p.m && col < p.n) {
                const uint at = p.base_c + row * p.ldc + col;
                float value = p.alpha * total[i][j];
                if (p.beta != 0.0) // with 0 the old content may be anything, NaN too
                    value += p.beta * c[at];
                c[at] = value;
            }
        }
    }
}
