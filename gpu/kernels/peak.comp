#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Multiply-adds in registers and nothing else: what the device can do at most. 64 FLOP a thread and round.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) writeonly buffer S { float sink[]; };
layout(push_constant) uniform Push { uint rounds; float factor, addend; } p;

#include "common/groups.glsl"

void main()
{
    vec4 sums[8]; // eight chains a thread: none waits for itself
    for (uint i = 0; i < 8u; ++i)
        sums[i] = vec4(float(thread_index() + i));
    for (uint round = 0; round < p.rounds; ++round) {
        for (uint i = 0; i < 8u; ++i)
            sums[i] = sums[i] * p.factor + p.addend;
    }
    vec4 all = sums[0];
    for (uint i = 1; i < 8u; ++i)
        all += sums[i];
    sink[thread_index()] = all.x + all.y + all.z + all.w; // or the compiler would leave all of it out
}
