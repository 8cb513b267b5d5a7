#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// slope = f'(x) · slope; with GATED slope = f'(x) · up · slope and dup = f(x) · slope, the slope before it was overwritten.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 3) const bool GATED = false;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) buffer D { float slope[]; };
layout(std430, set = 0, binding = 2) readonly buffer U { float up[]; };
layout(std430, set = 0, binding = 3) writeonly buffer V { float dup[]; };
layout(push_constant) uniform Push { uint count, activation; } p;

#include "common/activations.glsl"
#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const vec2 value = activated(x[i], p.activation);
        const float above = slope[i];
        if (GATED) {
            dup[i] = value.x * above;
            slope[i] = value.y * up[i] * above;
        } else {
            slope[i] = value.y * above;
        }
    }
}
