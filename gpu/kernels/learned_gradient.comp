#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Gradient of learned rounding, straight through the rounding (methods-learned 1.2); a group of threads a row and group
// of weights: D = −G ⊙ s₁ ⊙ [inside] ⊙ v, and in place of s₁ and the lowest code Σ G ⊙ s₁ ⊙ code + D and Σ D.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 64;
layout(std430, set = 0, binding = 0) readonly buffer S { float slope[]; };
layout(std430, set = 0, binding = 1) readonly buffer R { float ratio[]; };
layout(std430, set = 0, binding = 2) buffer G { float grid[]; };
layout(std430, set = 0, binding = 3) writeonly buffer D { float d[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, width, groups;
    uint base_slope, base_ratio, base_grid, base_d;
    float span;
} p;

#include "common/grid.glsl"
#include "common/groups.glsl"
#include "common/two_float.glsl"
#include "common/reduce_pair.glsl"

void main()
{
    const uint row = group_index() / p.groups;
    if (row >= p.rows)
        return; // the same for the whole group
    const uint first = group_index() % p.groups * p.width;
    const uint end = min(first + p.width, p.cols);
    const uint at = p.base_grid + 2u * group_index();
    const float scale = grid[at];
    const float low = grid[at + 1u];
    const float high = low + p.span;
    vec2 shifts = vec2(0.0);
    vec2 sums = vec2(0.0);
    for (uint j = first + gl_LocalInvocationIndex; j < end; j += LANES) {
        const uint i = row * p.cols + j;
        const float v = ratio[p.base_ratio + i];
        // Codes one beyond the ends tell what the clamp cuts off.
        const float wide = grid_code(v, 1.0, low - 1.0, p.span + 2.0);
        const float code = clamp(wide, low, high);
        const float scaled = slope[p.base_slope + i] * scale;
        const float inside = wide == code ? scaled * v : 0.0;
        d[p.base_d + i] = -inside;
        shifts = add_float(shifts, scaled * code - inside);
        sums = add_float(sums, -inside);
    }
    shifts = reduce_pair(shifts); // its barriers also stand between reading the grid and writing it
    sums = reduce_pair(sums);
    if (gl_LocalInvocationIndex == 0u) {
        grid[at] = shifts.x + shifts.y;
        grid[at + 1u] = sums.x + sums.y;
    }
}
