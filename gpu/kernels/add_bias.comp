#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Every row of x plus the bias.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer B { float bias[]; };
layout(push_constant) uniform Push { uint count, cols, base; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count())
        x[p.base + i] += bias[i % p.cols];
}
