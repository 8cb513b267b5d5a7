#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Largest |x| of each row, as bits, and the sum of its squares; a group a row.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { uint x[]; };
layout(std430, set = 0, binding = 1) writeonly buffer R { uint extremes[]; }; // two a row
layout(push_constant) uniform Push { uint rows, cols, base_x, first_row; } p;

shared uint most[LANES];
shared float squares[LANES];

#include "common/groups.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    uint largest = 0u;
    float sum = 0.0;
    for (uint j = lane; j < p.cols; j += LANES) {
        const uint bits = x[p.base_x + row * p.cols + j];
        const float value = uintBitsToFloat(bits);
        largest = max(largest, bits & 0x7FFFFFFFu);
        sum += value * value;
    }
    most[lane] = largest;
    squares[lane] = sum;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            most[lane] = max(most[lane], most[lane + width]);
            squares[lane] += squares[lane + width];
        }
        barrier();
    }
    if (lane == 0u) {
        const uint at = 2u * (p.first_row + row);
        extremes[at] = most[0];
        extremes[at + 1u] = floatBitsToUint(squares[0]);
    }
}
