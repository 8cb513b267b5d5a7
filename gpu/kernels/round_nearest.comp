#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Codes and values of weights rounded to the nearest grid point. grid: scale and lowest code (or minimum) of every row
// and group.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer W { float w[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float grid[]; };
layout(std430, set = 0, binding = 2) writeonly buffer C { float codes[]; };
layout(std430, set = 0, binding = 3) writeonly buffer V { float values[]; };

#include "common/levels.glsl"
layout(push_constant) uniform Push
{
    uint count, cols, width, groups;
    uint base_w, base_grid, base_codes, base_values;
    Levels levels;
} p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const uint at = p.base_grid + 2u * ((i / p.cols) * p.groups + (i % p.cols) / p.width);
        const float scale = grid[at];
        const float code = code_of(p.levels, w[p.base_w + i], scale, grid[at + 1u]);
        codes[p.base_codes + i] = code;
        values[p.base_values + i] = value_of(p.levels, code, scale, grid[at + 1u]);
    }
}
