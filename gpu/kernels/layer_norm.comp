#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// y = (x − mean) / sqrt(variance + epsilon) ⊙ gain + bias, a group a row.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float gain[]; };
layout(std430, set = 0, binding = 2) readonly buffer B { float bias[]; };
layout(std430, set = 0, binding = 3) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push { uint rows, cols, base_x, base_y; float epsilon; } p;

#include "common/groups.glsl"
#include "common/reduce.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    const uint from = p.base_x + row * p.cols;
    float sum = 0.0;
    for (uint j = lane; j < p.cols; j += LANES)
        sum += x[from + j];
    const float mean = reduce_sum(sum) / float(p.cols);
    float squares = 0.0; // of the distances: nothing cancels
    for (uint j = lane; j < p.cols; j += LANES) {
        const float distance = x[from + j] - mean;
        squares += distance * distance;
    }
    const float inverse = 1.0 / sqrt(reduce_sum(squares) / float(p.cols) + p.epsilon);
    for (uint j = lane; j < p.cols; j += LANES)
        y[p.base_y + row * p.cols + j] = (x[from + j] - mean) * inverse * gain[j] + bias[j];
}
