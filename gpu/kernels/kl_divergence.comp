#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// KL(p ‖ q) of every row as a pair of floats, a group a row. Σ p·(ln p − ln q) cancels, so it is summed as
// Σ p·(e^(−u) − 1 + u) with u = ln p − ln q, whose terms are never negative (Σ p·e^(−u) = Σ q = 1); u comes from the
// difference of the logits, which is exact where they are close, and an error common to all u counts only squared.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer P { float reference[]; };
layout(std430, set = 0, binding = 1) readonly buffer Q { float logits[]; };
layout(std430, set = 0, binding = 2) writeonly buffer K { float divergence[]; };
layout(push_constant) uniform Push { uint rows, cols, base_p, base_q, first_row; } p;

#include "common/groups.glsl"
#include "common/two_float.glsl"
#include "common/reduce.glsl"
#include "common/reduce_pair.glsl"

const float NEAR = 0.5; // the series below are exact to a float up to here

// e^(−u) − 1, |u| ≤ NEAR.
float shrunk(float u)
{
    float sum = 1.0;
    for (uint k = 8u; k > 1u; --k)
        sum = 1.0 - u / float(k) * sum;
    return -u * sum;
}

// e^(−u) − 1 + u, |u| ≤ NEAR.
float bent(float u)
{
    float sum = 1.0;
    for (uint k = 9u; k > 2u; --k)
        sum = 1.0 - u / float(k) * sum;
    return 0.5 * u * u * sum;
}

void main()
{
    const uint row = group_index();
    if (row >= p.rows)
        return; // the same for the whole group
    const uint lane = gl_LocalInvocationIndex;
    const uint from_p = p.base_p + row * p.cols;
    const uint from_q = p.base_q + row * p.cols;
    float most = -3.402823e38;
    float other = -3.402823e38;
    for (uint j = lane; j < p.cols; j += LANES) {
        most = max(most, reference[from_p + j]);
        other = max(other, logits[from_q + j]);
    }
    most = reduce_max(most);
    other = reduce_max(other);
    const float apart = most - other;
    vec2 sizes = vec2(0.0);
    vec2 changes = vec2(0.0); // Σ q − p before they are scaled
    for (uint j = lane; j < p.cols; j += LANES) {
        const float a = exp(reference[from_p + j] - most);
        const float d = (reference[from_p + j] - logits[from_q + j]) - apart;
        sizes = add_float(sizes, a);
        changes = add_float(changes, abs(d) <= NEAR ? a * shrunk(d) : exp(logits[from_q + j] - other) - a);
    }
    const vec2 size_pair = reduce_pair(sizes);
    const vec2 change_pair = reduce_pair(changes);
    const float size = size_pair.x + size_pair.y;
    const float change = (change_pair.x + change_pair.y) / size;
    const float other_size = size * (1.0 + change);
    const float level = log(1.0 + change);
    vec2 sum = vec2(0.0);
    for (uint j = lane; j < p.cols; j += LANES) {
        const float a = exp(reference[from_p + j] - most) / size;
        const float u = (reference[from_p + j] - logits[from_q + j]) - apart + level;
        sum = add_float(sum, abs(u) <= NEAR ? a * bent(u)
                                            : exp(logits[from_q + j] - other) / other_size - a + a * u);
    }
    sum = reduce_pair(sum);
    if (lane == 0u) {
        divergence[2u * (p.first_row + row)] = sum.x;
        divergence[2u * (p.first_row + row) + 1u] = sum.y;
    }
}
