#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Coordinate descent on the codes of a panel of at most PANEL columns: a thread takes a row through the panel, each code
// becoming the one nearest to its conditional optimum. errors: W − Q of every column, then PANEL columns with the
// panel's slopes (W − Q)·H, which a product filled; both are kept up to date. grid as in round_feedback.comp.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 32;
layout(constant_id = 3) const uint PANEL = 64;
layout(std430, set = 0, binding = 0) buffer C { float codes[]; };
layout(std430, set = 0, binding = 1) buffer E { float errors[]; };
layout(std430, set = 0, binding = 2) readonly buffer H { float hessian[]; };
layout(std430, set = 0, binding = 3) readonly buffer G { float grid[]; };

#include "common/levels.glsl"
layout(push_constant) uniform Push
{
    uint rows, cols, start, count, groups;
    uint base_codes, base_errors, base_hessian, base_pairs;
    Levels levels;
} p;

shared float slopes[PANEL * LANES]; // a column of it belongs to one thread: no barriers

#include "common/groups.glsl"

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    const uint row = group_index() * LANES + lane;
    if (row >= p.rows)
        return; // no barrier follows
    const uint own_codes = p.base_codes + row * p.cols + p.start;
    const uint own_errors = p.base_errors + row * (p.cols + PANEL);
    for (uint k = 0u; k < p.count; ++k)
        slopes[k * LANES + lane] = errors[own_errors + p.cols + k];
    for (uint k = 0u; k < p.count; ++k) {
        const uint at = p.base_pairs + 2u * (row * p.groups + uint(grid[p.start + k]));
        const float scale = grid[at];
        const uint factors = p.base_hessian + k * p.cols + p.start;
        const float diagonal = hessian[factors + k];
        if (!(diagonal > 0.0) || scale == 0.0)
            continue;
        const float level = level_of(p.levels, codes[own_codes + k]);
        precise float target = level + slopes[k * LANES + lane] / (diagonal * scale);
        const float code = nearest_code(p.levels, target, grid[at + 1u]);
        const float next = level_of(p.levels, code);
        // At a tie both codes cost the same: the old one stays, or two passes could alternate.
        if (abs(next - target) >= abs(level - target))
            continue;
        precise float change = (next - level) * scale;
        codes[own_codes + k] = code;
        errors[own_errors + p.start + k] -= change;
        for (uint j = k + 1u; j < p.count; ++j)
            slopes[j * LANES + lane] -= hessian[factors + j] * change;
    }
}
