// SPDX-License-Identifier: GPL-3.0-or-later
// c = alpha · op(a) · op(b) + beta · c. With HALF defined b is stored in float16 and a rounded to it; sums are float32.
layout(std430, set = 0, binding = 0) readonly buffer A { float a[]; };
#ifdef HALF
layout(std430, set = 0, binding = 1) readonly buffer B { uint b[]; }; // two numbers a word, base and stride count numbers
#else
layout(std430, set = 0, binding = 1) readonly buffer B { float b[]; };
#endif
layout(std430, set = 0, binding = 2) buffer C { float c[]; };
layout(push_constant) uniform Push
{
    uint m, n, k_end;
    uint lda, ldb, ldc;
    uint base_a, base_b, base_c;
    uint flags;
    float alpha, beta;
} p;

#ifdef HALF
float a_at(uint i) { return unpackHalf2x16(packHalf2x16(vec2(clamp(a[i], -65504.0, 65504.0), 0.0))).x; }
float b_at(uint i)
{
    const vec2 both = unpackHalf2x16(b[i >> 1]);
    return (i & 1u) != 0u ? both.y : both.x;
}
#else
float a_at(uint i) { return a[i]; }
float b_at(uint i) { return b[i]; }
#endif

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
