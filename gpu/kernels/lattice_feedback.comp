#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// One panel of at most PANEL columns of block LDLQ to the E8P lattice: a thread takes a row through the panel's blocks,
// each block's errors being carried to the columns after it. What earlier panels contribute is already in the targets.
// Targets become values, weights become errors W − Q. Blocks have eight columns; one of a matrix may have fewer.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 32;
layout(constant_id = 3) const uint PANEL = 64;
layout(std430, set = 0, binding = 0) buffer T { float targets[]; };
layout(std430, set = 0, binding = 1) buffer W { float weights[]; };
layout(std430, set = 0, binding = 2) readonly buffer U { float feedback[]; };
layout(std430, set = 0, binding = 3) writeonly buffer C { float codes[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, start, count;
    uint blocks, short_block, short_width; // the short block's place in the panel; none: beyond it
    uint stages, code_cols, first_code;
    uint base_targets, base_weights, base_feedback, base_codes;
    float scale;
} p;

shared float panel[PANEL * LANES]; // a column of it belongs to one thread: no barriers

#include "common/e8p.glsl"
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
    uint first = 0u;
    for (uint block = 0u; block < p.blocks; ++block) {
        const uint width = block == p.short_block ? p.short_width : 8u;
        float x[8];
        for (uint i = 0u; i < 8u; ++i)
            x[i] = i < width ? panel[(first + i) * LANES + lane] / p.scale : 0.0;
        float value[8];
        uint code[2];
        e8p_nearest_stages(x, p.stages, value, code);
        for (uint stage = 0u; stage < p.stages; ++stage)
            codes[p.base_codes + row * p.code_cols + p.first_code + block * p.stages + stage] = float(code[stage]);
        for (uint i = 0u; i < width; ++i) {
            precise float rounded = p.scale * value[i];
            precise float error = weights[own_weights + first + i] - rounded;
            targets[own_targets + first + i] = rounded;
            weights[own_weights + first + i] = error;
            const uint factors = p.base_feedback + (first + i) * p.cols + p.start;
            for (uint j = first + width; j < p.count; ++j)
                panel[j * LANES + lane] += feedback[factors + j] * error;
        }
        first += width;
    }
}
