#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// E + (r + c): the logarithm of what divides each weight before it is rounded, less that of its scale.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 3) const bool COLUMNS = true;
layout(std430, set = 0, binding = 0) readonly buffer E { float exponent[]; };
layout(std430, set = 0, binding = 1) readonly buffer R { float of_row[]; };
layout(std430, set = 0, binding = 2) readonly buffer C { float of_column[]; };
layout(std430, set = 0, binding = 3) writeonly buffer T { float total[]; };
layout(push_constant) uniform Push { uint count, cols, base_rows, base_exponent, base_total; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const float row = of_row[p.base_rows + i / p.cols];
        const float both = COLUMNS ? row + of_column[i % p.cols] : row;
        total[p.base_total + i] = exponent[p.base_exponent + i] + both;
    }
}
