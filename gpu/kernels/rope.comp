#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Turns the pairs (i, i + half) of every head by the angle of the token's position. turns[position][i] holds cosine and
// sine, made on the host in float64: large angles are beyond float32.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer T { vec2 turns[]; };
layout(push_constant) uniform Push { uint count, heads, head_dim, half_rotary, sequence_length, first_row, base; } p;

#include "common/groups.glsl"

void main()
{
    for (uint at = thread_index(); at < p.count; at += thread_count()) {
        const uint i = at % p.half_rotary;
        const uint head = (at / p.half_rotary) % p.heads;
        const uint row = at / (p.half_rotary * p.heads);
        const uint position = (p.first_row + row) % p.sequence_length;
        const vec2 turn = turns[position * p.half_rotary + i];
        const uint first = p.base + (row * p.heads + head) * p.head_dim + i;
        const float real = x[first];
        const float imaginary = x[first + p.half_rotary];
        x[first] = real * turn.x - imaginary * turn.y;
        x[first + p.half_rotary] = imaginary * turn.x + real * turn.y;
    }
}
