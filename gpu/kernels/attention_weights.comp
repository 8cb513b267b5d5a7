#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Softmax over the keys that a query sees, a group a query of one head; 0 for the others. Query `first_token + row`
// sees itself and, with a window, window − 1 keys before it; column 0 is key `oldest`.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 64;
layout(std430, set = 0, binding = 0) readonly buffer S { float scores[]; };
layout(std430, set = 0, binding = 1) writeonly buffer P { float weights[]; };
layout(push_constant) uniform Push { uint rows, keys, first_token, oldest, window; float score_cap; } p;

#include "common/groups.glsl"
#include "common/reduce.glsl"
#include "common/soft_cap.glsl"

float score(uint at) { return p.score_cap > 0.0 ? soft_cap(scores[at], p.score_cap) : scores[at]; }

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    const uint token = p.first_token + row;
    const uint begin = (p.window != 0u && token >= p.window ? max(token - p.window + 1u, p.oldest) : p.oldest) - p.oldest;
    const uint end = token + 1u - p.oldest;
    const uint from = row * p.keys;
    float largest = -3.402823e38;
    for (uint j = begin + lane; j < end; j += LANES)
        largest = max(largest, score(from + j));
    largest = reduce_max(largest);
    float sum = 0.0;
    for (uint j = begin + lane; j < end; j += LANES)
        sum += exp(score(from + j) - largest);
    const float total = reduce_sum(sum);
    for (uint j = lane; j < p.keys; j += LANES)
        weights[from + j] = j >= begin && j < end ? exp(score(from + j) - largest) / total : 0.0;
}
