#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// x = f(x), or with GATED x = f(x) · up.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 3) const bool GATED = false;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer U { float up[]; };
layout(push_constant) uniform Push { uint count, activation; } p;

#include "common/activations.glsl"
#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const float value = activated(x[i], p.activation).x;
        if (GATED)
            x[i] = value * up[i];
        else
            x[i] = value;
    }
}
