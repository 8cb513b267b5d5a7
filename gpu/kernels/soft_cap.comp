#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// x = cap · tanh(x / cap).
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(push_constant) uniform Push { uint count; float cap; } p;

#include "common/groups.glsl"
#include "common/soft_cap.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count())
        x[i] = soft_cap(x[i], p.cap);
}
