#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Column of each row's largest element, the first of equals; a group a row.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) writeonly buffer C { uint columns[]; };
layout(push_constant) uniform Push { uint rows, cols, base, first_row; } p;

shared float largest[LANES];
shared uint places[LANES];

#include "common/groups.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    float most = 0.0;
    uint place = 0xFFFFFFFFu; // nothing yet
    for (uint j = lane; j < p.cols; j += LANES) {
        const float value = x[p.base + row * p.cols + j];
        if (place == 0xFFFFFFFFu || value > most) {
            most = value;
            place = j;
        }
    }
    largest[lane] = most;
    places[lane] = place;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width && places[lane + width] != 0xFFFFFFFFu) {
            const float other = largest[lane + width];
            if (other > largest[lane] || (other == largest[lane] && places[lane + width] < places[lane])) {
                largest[lane] = other;
                places[lane] = places[lane + width];
            }
        }
        barrier();
    }
    if (lane == 0u)
        columns[p.first_row + row] = places[0];
}
