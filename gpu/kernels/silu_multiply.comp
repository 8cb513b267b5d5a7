#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// gate = gate · sigmoid(gate) · up.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer G { float gate[]; };
layout(std430, set = 0, binding = 1) readonly buffer U { float up[]; };
layout(push_constant) uniform Push { uint count; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const float g = gate[i];
        gate[i] = g / (1.0 + exp(min(-g, 80.0))) * up[i]; // exp(88) would overflow
    }
}
