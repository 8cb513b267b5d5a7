#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Rows of float32 as float16, two numbers a word; a row of odd length ends with a zero. What is beyond float16 becomes
// its largest number.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) readonly buffer X { float x[]; };
layout(std430, set = 0, binding = 1) writeonly buffer H { uint words[]; };
layout(push_constant) uniform Push { uint count, cols, row_words, base_x, base_words; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count()) {
        const uint col = 2u * (i % p.row_words);
        const uint at = p.base_x + i / p.row_words * p.cols + col;
        const vec2 both = vec2(x[at], col + 1u < p.cols ? x[at + 1u] : 0.0);
        words[p.base_words + i] = packHalf2x16(clamp(both, vec2(-65504.0), vec2(65504.0)));
    }
}
