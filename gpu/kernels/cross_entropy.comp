#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// For every row: the largest logit, Σ exp(logit − largest) and the target's logit; the host takes the logarithm in
// float64.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { float logits[]; };
layout(std430, set = 0, binding = 1) readonly buffer T { uint targets[]; };
layout(std430, set = 0, binding = 2) writeonly buffer P { float parts[]; };
layout(push_constant) uniform Push { uint rows, cols, base, first_row; } p;

shared float lanes[LANES];

#include "common/groups.glsl"

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    const uint from = p.base + row * p.cols;
    float value = -3.402823e38;
    for (uint j = lane; j < p.cols; j += LANES)
        value = max(value, logits[from + j]);
    lanes[lane] = value;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            lanes[lane] = max(lanes[lane], lanes[lane + width]);
        barrier();
    }
    const float largest = lanes[0];
    barrier();
    value = 0.0;
    for (uint j = lane; j < p.cols; j += LANES)
        value += exp(logits[from + j] - largest);
    lanes[lane] = value;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            lanes[lane] += lanes[lane + width];
        barrier();
    }
    if (lane == 0u) {
        const uint at = 3u * (p.first_row + row);
        parts[at] = largest;
        parts[at + 1u] = lanes[0];
        parts[at + 2u] = logits[from + targets[p.first_row + row]];
    }
}
