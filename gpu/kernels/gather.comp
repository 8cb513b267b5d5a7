#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// target[i][j] = source[i][columns[j]].
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer S { float source[]; };
layout(std430, set = 0, binding = 1) readonly buffer C { uint columns[]; };
layout(std430, set = 0, binding = 2) writeonly buffer T { float target[]; };
layout(push_constant) uniform Push { uint count, source_cols, target_cols, base_source, base_target; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count())
        target[p.base_target + i] =
            source[p.base_source + (i / p.target_cols) * p.source_cols + columns[i % p.target_cols]];
}
