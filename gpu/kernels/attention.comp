#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Causal attention of one query token and head a group; keys and values are those of the token's sequence. Keys
// come LANES at a time; maximum and sum of the softmax are carried along and earlier results rescaled, so that no
// row of scores is ever stored.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 64;
layout(constant_id = 3) const uint HEAD_DIM = 64;
layout(std430, set = 0, binding = 0) readonly buffer Q { float q[]; };
layout(std430, set = 0, binding = 1) readonly buffer K { float k[]; };
layout(std430, set = 0, binding = 2) readonly buffer V { float v[]; };
layout(std430, set = 0, binding = 3) writeonly buffer O { float result[]; };
layout(push_constant) uniform Push
{
    uint rows, heads, kv_heads, window, first_token;
    uint base_q, base_k, base_v, base_o;
    float scale, score_cap;
} p;

shared float query[HEAD_DIM];
shared float sums[HEAD_DIM];
shared float weights[LANES];

#include "common/groups.glsl"
#include "common/reduce.glsl"
#include "common/soft_cap.glsl"

void main()
{
    const uint row = group_index() / p.heads;
    if (row >= p.rows)
        return; // the same for the whole group
    const uint head = group_index() % p.heads;
    const uint kv_head = head / (p.heads / p.kv_heads);
    const uint kv_stride = p.kv_heads * HEAD_DIM;
    const uint lane = gl_LocalInvocationIndex;
    const uint token = p.first_token + row;
    const uint first_key = p.window != 0u && token >= p.window ? token - p.window + 1u : 0u;
    const uint own = (row * p.heads + head) * HEAD_DIM;
    for (uint d = lane; d < HEAD_DIM; d += LANES) {
        query[d] = q[p.base_q + own + d] * p.scale;
        sums[d] = 0.0;
    }
    barrier();

    float largest = -3.402823e38;
    float total = 0.0;
    for (uint key0 = first_key; key0 <= token; key0 += LANES) {
        const uint key = key0 + lane;
        const bool seen = key <= token;
        float score = -3.402823e38;
        if (seen) {
            const uint at = p.base_k + key * kv_stride + kv_head * HEAD_DIM;
            score = 0.0;
            for (uint d = 0u; d < HEAD_DIM; ++d)
                score += query[d] * k[at + d];
            if (p.score_cap > 0.0)
                score = soft_cap(score, p.score_cap);
        }
        const float new_largest = max(largest, reduce_max(score));
        const float weight = seen ? exp(score - new_largest) : 0.0;
        weights[lane] = weight;
        const float shrink = exp(largest - new_largest);
        total = total * shrink + reduce_sum(weight); // its barriers also publish weights
        largest = new_largest;
        const uint keys = min(LANES, token + 1u - key0);
        for (uint d = lane; d < HEAD_DIM; d += LANES) {
            float sum = sums[d] * shrink;
            const uint at = p.base_v + key0 * kv_stride + kv_head * HEAD_DIM + d;
            for (uint j = 0u; j < keys; ++j)
                sum += weights[j] * v[at + j * kv_stride];
            sums[d] = sum;
        }
        barrier();
    }
    for (uint d = lane; d < HEAD_DIM; d += LANES)
        result[p.base_o + own + d] = sums[d] / total;
}
