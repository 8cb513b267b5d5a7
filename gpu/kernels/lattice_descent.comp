#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Coordinate descent on the lattice points of a panel of at most PANEL columns: a thread takes a row through the
// panel's groups of eight, each taking the point nearest to its conditional optimum where that lowers the objective.
// errors as in descend_codes.comp.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 32;
layout(constant_id = 3) const uint PANEL = 64;
layout(std430, set = 0, binding = 0) buffer V { float values[]; };
layout(std430, set = 0, binding = 1) buffer E { float errors[]; };
layout(std430, set = 0, binding = 2) readonly buffer H { float hessian[]; };
layout(std430, set = 0, binding = 3) writeonly buffer C { float codes[]; };
layout(push_constant) uniform Push
{
    uint rows, cols, start, count;
    uint stages, code_cols;
    uint base_values, base_errors, base_hessian, base_codes;
    float scale;
} p;

shared float slopes[PANEL * LANES]; // a column of it belongs to one thread
shared float factor[64];            // Cholesky factor of a group's block of H
shared bool usable;

#include "common/e8p.glsl"
#include "common/groups.glsl"

float block_of(uint first, uint i, uint j) { return hessian[p.base_hessian + (first + i) * p.cols + p.start + first + j]; }

void factorize(uint first, uint width)
{
    bool fine = true;
    for (uint j = 0u; j < width; ++j) {
        for (uint i = j; i < width; ++i) {
            float sum = block_of(first, i, j);
            for (uint k = 0u; k < j; ++k)
                sum -= factor[8u * i + k] * factor[8u * j + k];
            if (i == j) {
                fine = fine && sum > 0.0;
                factor[9u * j] = sqrt(max(sum, 1e-30));
            } else {
                factor[8u * i + j] = sum / factor[9u * j];
            }
        }
    }
    usable = fine;
}

// The block's inverse times `gradient`.
void solve(uint width, float gradient[8], out float step_to[8])
{
    for (uint i = 0u; i < width; ++i) {
        float sum = gradient[i];
        for (uint k = 0u; k < i; ++k)
            sum -= factor[8u * i + k] * step_to[k];
        step_to[i] = sum / factor[9u * i];
    }
    for (uint i = width; i-- > 0u;) {
        float sum = step_to[i];
        for (uint k = i + 1u; k < width; ++k)
            sum -= factor[8u * k + i] * step_to[k];
        step_to[i] = sum / factor[9u * i];
    }
}

void tune_group(uint row, uint first, uint width)
{
    const uint lane = gl_LocalInvocationIndex;
    const uint own_values = p.base_values + row * p.cols + p.start + first;
    float gradient[8];
    for (uint i = 0u; i < width; ++i)
        gradient[i] = slopes[(first + i) * LANES + lane];
    float step_to[8];
    solve(width, gradient, step_to);
    float x[8];
    for (uint i = 0u; i < 8u; ++i)
        x[i] = i < width ? (values[own_values + i] + step_to[i]) / p.scale : 0.0;
    float value[8];
    uint code[2];
    e8p_nearest_stages(x, p.stages, value, code);
    float change[8];
    for (uint i = 0u; i < width; ++i)
        change[i] = p.scale * value[i] - values[own_values + i];
    float gain = 0.0;
    for (uint i = 0u; i < width; ++i) {
        float sum = -2.0 * gradient[i];
        for (uint j = 0u; j < width; ++j)
            sum += block_of(first, i, j) * change[j];
        gain += change[i] * sum;
    }
    if (!(gain < 0.0))
        return;
    const uint own_errors = p.base_errors + row * (p.cols + PANEL) + p.start + first;
    for (uint i = 0u; i < width; ++i) {
        values[own_values + i] = p.scale * value[i];
        errors[own_errors + i] -= change[i];
        const uint factors = p.base_hessian + (first + i) * p.cols + p.start;
        for (uint j = first + width; j < p.count; ++j)
            slopes[j * LANES + lane] -= hessian[factors + j] * change[i];
    }
    const uint group = (p.start + first) / 8u;
    for (uint stage = 0u; stage < p.stages; ++stage)
        codes[p.base_codes + row * p.code_cols + group * p.stages + stage] = float(code[stage]);
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint row = group_index() * LANES + lane;
    const bool mine = row < p.rows;
    if (mine) {
        const uint own = p.base_errors + row * (p.cols + PANEL) + p.cols;
        for (uint k = 0u; k < p.count; ++k)
            slopes[k * LANES + lane] = errors[own + k];
    }
    for (uint first = 0u; first < p.count; first += 8u) {
        const uint width = min(8u, p.count - first);
        barrier();
        if (lane == 0u)
            factorize(first, width);
        barrier();
        if (mine && usable)
            tune_group(row, first, width);
    }
}
