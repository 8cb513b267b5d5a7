#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// One panel of PANEL columns of LDLQ: a thread takes a row through the panel's columns, each rounding error being
// carried to the columns after it. What earlier panels contribute is already in the targets (a product on the host's
// schedule). Targets become codes, weights become errors W − Q. grid: first the group of every column, then
// scale and lowest code (or minimum) of every row and group.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 32;
layout(constant_id = 3) const uint PANEL = 64;
layout(std430, set = 0, binding = 0) buffer T { float targets[]; };
layout(std430, set = 0, binding = 1) buffer W { float weights[]; };
layout(std430, set = 0, binding = 2) readonly buffer U { float feedback[]; };
layout(std430, set = 0, binding = 3) readonly buffer G { float grid[]; };

#include "common/levels.glsl"
layout(push_constant) uniform Push
{
    uint rows, cols, start, count, groups;
    uint base_targets, base_weights, base_feedback, base_pairs;
    Levels levels;
} p;

shared float panel[PANEL * LANES]; // a column of it belongs to one thread: no barriers

#include "common/groups.glsl"

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint row = group_index() * LANES + lane;
    if (row >= p.rows)
        return; // no barrier follows
    const uint own_targets = p.base_targets + row * p.cols + p.start;
    const uint own_weights = p.base_weights + row * p.cols + p.start;
    for (uint k = 0u; k < p.count; ++k)
        panel[k * LANES + lane] = targets[own_targets + k];
    for (uint k = 0u; k < p.count; ++k) {
        const uint group = uint(grid[p.start + k]);
        const uint at = p.base_pairs + 2u * (row * p.groups + group);
        const float scale = grid[at];
        const float code = code_of(p.levels, panel[k * LANES + lane], scale, grid[at + 1u]);
        precise float value = value_of(p.levels, code, scale, grid[at + 1u]);
        precise float error = weights[own_weights + k] - value;
        targets[own_targets + k] = code;
        weights[own_weights + k] = error;
        const uint factors = p.base_feedback + k * p.cols + p.start;
        for (uint j = k + 1u; j < p.count; ++j)
            panel[j * LANES + lane] += feedback[factors + j] * error;
    }
}
