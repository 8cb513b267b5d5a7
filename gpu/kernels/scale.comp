#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Every row, or every column, of x times a factor of its own.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(std430, set = 0, binding = 0) buffer X { float x[]; };
layout(std430, set = 0, binding = 1) readonly buffer F { float factors[]; };
layout(push_constant) uniform Push { uint count, cols, base, first_row, by_column; } p;

#include "common/groups.glsl"

void main()
{
    for (uint i = thread_index(); i < p.count; i += thread_count())
        x[p.base + i] *= factors[p.by_column != 0u ? i % p.cols : p.first_row + i / p.cols];
}
