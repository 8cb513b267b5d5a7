#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// One panel of at most PANEL rows of op(L)·X = B, L lower triangular: a thread takes a column of B through the panel's
// rows, from the first down, or for Lᵀ from the last up. What other panels contribute is already in B (a product on the
// host's schedule).
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 32;
layout(constant_id = 3) const uint PANEL = 64;
layout(std430, set = 0, binding = 0) buffer B { float b[]; };
layout(std430, set = 0, binding = 1) readonly buffer L { float lower[]; };
layout(push_constant) uniform Push
{
    uint cols, first, count; // columns of B, the first of this dispatch, rows of the panel
    uint end;                // behind the last column of this dispatch
    uint order;              // columns of L
    uint base_b, base_lower; // row 0 of the panel; the panel's first diagonal element
    uint transposed;
} p;

shared float panel[PANEL * LANES]; // a column of it belongs to one thread: no barriers

#include "common/groups.glsl"

float triangle(uint row, uint col) { return lower[p.base_lower + row * p.order + col]; }

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint col = p.first + group_index() * LANES + lane;
    if (col >= p.end)
        return; // no barrier follows
    for (uint k = 0u; k < p.count; ++k)
        panel[k * LANES + lane] = b[p.base_b + k * p.cols + col];
    for (uint step = 0u; step < p.count; ++step) {
        const uint k = p.transposed != 0u ? p.count - 1u - step : step;
        const float x = panel[k * LANES + lane] / triangle(k, k);
        b[p.base_b + k * p.cols + col] = x;
        if (p.transposed != 0u) {
            for (uint j = 0u; j < k; ++j)
                panel[j * LANES + lane] -= triangle(k, j) * x;
        } else {
            for (uint j = k + 1u; j < p.count; ++j)
                panel[j * LANES + lane] -= triangle(j, k) * x;
        }
    }
}
