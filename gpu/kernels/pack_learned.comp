#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Learned scale s₀ · exp(δ) and lowest code of every row and group, side by side.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer S { float scales[]; };
layout(std430, set = 0, binding = 1) readonly buffer D { float shift[]; };
layout(std430, set = 0, binding = 2) readonly buffer Z { float zeros[]; };
layout(std430, set = 0, binding = 3) writeonly buffer P { float packed[]; };
layout(push_constant) uniform Push { uint count, base_packed, symmetric; float lowest; } p;

#include "common/groups.glsl"
#include "common/learned.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        packed[p.base_packed + 2u * i] = scales[i] * factor_of(shift[i]);
        packed[p.base_packed + 2u * i + 1u] = p.symmetric != 0u ? p.lowest : -zeros[i];
    }
}
