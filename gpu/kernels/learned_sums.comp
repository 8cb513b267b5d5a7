#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// What learned_gradient left of every row and group becomes the gradients of the shifts and of the rows; a thread a row.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer G { float sums[]; };
layout(std430, set = 0, binding = 1) writeonly buffer S { float dshift[]; };
layout(std430, set = 0, binding = 2) writeonly buffer R { float drows[]; };
layout(push_constant) uniform Push { uint rows, groups, base_sums, base_shift, base_rows; } p;

#include "common/groups.glsl"
#include "common/two_float.glsl"

void main()
{
    for (uint row = thread_index(); row < p.rows; row += thread_count()) {
        vec2 total = vec2(0.0);
        for (uint group = 0u; group < p.groups; ++group) {
            const uint i = row * p.groups + group;
            dshift[p.base_shift + i] = sums[p.base_sums + 2u * i];
            total = add_float(total, sums[p.base_sums + 2u * i + 1u]);
        }
        drows[p.base_rows + row] = total.x + total.y;
    }
}
