#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Learned rounding: v = w / (s₁ · exp(exponent)) in place of the exponent, values = s₁ · clamp(round(v)). grid: s₁ and
// lowest code of every row and group.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer W { float w[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float grid[]; };
layout(std430, set = 0, binding = 2) buffer R { float ratio[]; };
layout(std430, set = 0, binding = 3) writeonly buffer V { float values[]; };
layout(push_constant) uniform Push
{
    uint count, cols, width, groups;
    uint base_w, base_grid, base_ratio, base_values;
    float span;
} p;

#include "common/grid.glsl"
#include "common/groups.glsl"
#include "common/learned.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const uint at = p.base_grid + 2u * ((i / p.cols) * p.groups + (i % p.cols) / p.width);
        const float scale = grid[at];
        precise float divisor = scale * factor_of(ratio[p.base_ratio + i]);
        precise float v = w[p.base_w + i] / divisor;
        ratio[p.base_ratio + i] = v;
        values[p.base_values + i] = scale * grid_code(v, 1.0, grid[at + 1u], p.span);
    }
}
