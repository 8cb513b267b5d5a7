#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// What codes stand for; grid as in round_feedback.comp.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer C { float codes[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float grid[]; };
layout(std430, set = 0, binding = 2) writeonly buffer V { float values[]; };

#include "common/levels.glsl"
layout(push_constant) uniform Push
{
    uint count, cols, groups, base_codes, base_pairs, base_values;
    Levels levels;
} p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const uint group = uint(grid[i % p.cols]);
        const uint at = p.base_pairs + 2u * ((i / p.cols) * p.groups + group);
        values[p.base_values + i] = value_of(p.levels, codes[p.base_codes + i], grid[at], grid[at + 1u]);
    }
}
