// SPDX-License-Identifier: GPL-3.0-or-later
// One work group computes a tile of op(a)·op(b): THREADS_Y·MICRO rows × THREADS_X·MICRO columns, DEPTH terms at a time
// through shared memory, MICRO × MICRO results a thread. The includer declares a_at, b_at and the push constants
// m, n, k_end, lda, ldb, base_a, base_b and flags (1: a transposed, 2: b transposed).
layout(local_size_x_id = 0, local_size_y_id = 1) in;
layout(constant_id = 2) const uint THREADS_X = 16;
layout(constant_id = 3) const uint THREADS_Y = 16;

layout(constant_id = 4) const uint MICRO = 4;
layout(constant_id = 5) const uint DEPTH = 16; // divides CHUNK
const uint CHUNK = 256; // terms summed before they join the total: bounds the error of long sums
const uint TILE_M = THREADS_Y * MICRO;
const uint TILE_N = THREADS_X * MICRO;

shared float tile_a[DEPTH * (THREADS_Y * MICRO + 1)];
shared float tile_b[DEPTH * (THREADS_X * MICRO + 1)];

void load_tiles(uint row0, uint col0, uint k0)
{
    const uint threads = THREADS_X * THREADS_Y;
    const bool ta = (p.flags & 1u) != 0u;
    const bool tb = (p.flags & 2u) != 0u;
    // Neighbouring threads read neighbouring words, whichever way the matrix lies.
    for (uint e = gl_LocalInvocationIndex; e < TILE_M * DEPTH; e += threads) {
        const uint r = ta ? e % TILE_M : e / DEPTH;
        const uint d = ta ? e / TILE_M : e % DEPTH;
        const uint row = row0 + r;
        const uint k = k0 + d;
        float value = 0.0;
        if (row < p.m && k < p.k_end)
            value = a_at(p.base_a + (ta ? k * p.lda + row : row * p.lda + k));
        tile_a[d * (TILE_M + 1) + r] = value;
    }
    for (uint e = gl_LocalInvocationIndex; e < TILE_N * DEPTH; e += threads) {
        const uint c = tb ? e / DEPTH : e % TILE_N;
        const uint d = tb ? e % DEPTH : e / TILE_N;
        const uint col = col0 + c;
        const uint k = k0 + d;
        float value = 0.0;
        if (col < p.n && k < p.k_end)
            value = b_at(p.base_b + (tb ? col * p.ldb + k : k * p.ldb + col));
        tile_b[d * (TILE_N + 1) + c] = value;
    }
}

// Adds the products of the loaded tiles to sums[i][j], row thread_y + THREADS_Y·i, column thread_x + THREADS_X·j.
void multiply_tiles(inout float sums[MICRO][MICRO])
{
    for (uint d = 0; d < DEPTH; ++d) {
        float left[MICRO];
        float right[MICRO];
        for (uint i = 0; i < MICRO; ++i) {
            left[i] = tile_a[d * (TILE_M + 1) + gl_LocalInvocationID.y + THREADS_Y * i];
            right[i] = tile_b[d * (TILE_N + 1) + gl_LocalInvocationID.x + THREADS_X * i];
        }
        for (uint i = 0; i < MICRO; ++i)
            for (uint j = 0; j < MICRO; ++j)
                sums[i][j] += left[i] * right[j];
    }
}
