#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// y = alpha · x + beta · y.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) buffer Y { float y[]; };
layout(push_constant) uniform Push { uint count; float alpha, beta; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        precise float value = p.alpha * x[i];
        if (p.beta != 0.0) {
            precise float old = p.beta * y[i];
            value = value + old;
        }
        y[i] = value;
    }
}
