#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Gradient of RMSNorm, or with CENTERED of LayerNorm, a group a row: with n = (x − mean) · s and a = dy ⊙ gain,
// dx = s · (a − mean(a) − n · mean(a ⊙ n)), the first mean only where rows are centered. What comes as dy leaves as
// dy ⊙ n, whose sums over the rows are the gradient of the gain.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(constant_id = 3) const bool CENTERED = false;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer G { float gain[]; };
layout(std430, set = 0, binding = 2) buffer T { float terms[]; };
layout(std430, set = 0, binding = 3) writeonly buffer D { float dx[]; };
layout(push_constant) uniform Push { uint rows, cols, base_x, base_terms, base_dx; float epsilon; } p;

#include "common/groups.glsl"
#include "common/reduce.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    const uint from = p.base_x + row * p.cols;
    const uint slope = p.base_terms + row * p.cols;
    const float size = float(p.cols);
    float mean = 0.0;
    if (CENTERED) {
        float sum = 0.0;
        for (uint j = lane; j < p.cols; j += LANES)
            sum += x[from + j];
        mean = reduce_sum(sum) / size;
    }
    float squares = 0.0;
    float sum = 0.0;
    float product = 0.0;
    for (uint j = lane; j < p.cols; j += LANES) {
        const float distance = x[from + j] - mean;
        const float a = terms[slope + j] * gain[j];
        squares += distance * distance;
        sum += a;
        product += a * distance;
    }
    const float inverse = 1.0 / sqrt(reduce_sum(squares) / size + p.epsilon);
    const float level = CENTERED ? reduce_sum(sum) / size : 0.0;
    const float pull = reduce_sum(product) * inverse / size;
    for (uint j = lane; j < p.cols; j += LANES) {
        const float normal = (x[from + j] - mean) * inverse;
        const float dy = terms[slope + j];
        dx[p.base_dx + row * p.cols + j] = inverse * (dy * gain[j] - level - normal * pull);
        terms[slope + j] = dy * normal;
    }
}
