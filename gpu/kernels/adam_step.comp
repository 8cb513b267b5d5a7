#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// One step of Adam; the corrections of the first steps come with `rate` and `root`.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer P { float parameter[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float gradient[]; };
layout(std430, set = 0, binding = 2) buffer M { float first[]; };
layout(std430, set = 0, binding = 3) buffer V { float second[]; };
layout(push_constant) uniform Push { uint count; float keep1, take1, keep2, take2, rate, root, epsilon; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const float g = gradient[i];
        const float m = p.keep1 * first[i] + p.take1 * g;
        const float v = p.keep2 * second[i] + p.take2 * g * g;
        first[i] = m;
        second[i] = v;
        parameter[i] -= p.rate * m / (sqrt(v * p.root) + p.epsilon);
    }
}
