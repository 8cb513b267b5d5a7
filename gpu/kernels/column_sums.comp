#version 450
// SPDX-License-Identifier: GPL-3.0-or-later
// Sums over some rows of x for each column, a thread a column, from which the host makes ColumnStatistics: powers of the
// distance from a pivot (a mean of the first rows, so that nothing cancels) as pairs of floats, extremes, counts.
// x is read as bits: no compiler may assume that NaN and infinity do not occur.
#extension GL_GOOGLE_include_directive : require

layout(local_size_x_id = 0) in;
layout(constant_id = 2) const uint LANES = 128;
layout(std430, set = 0, binding = 0) readonly buffer X { uint x[]; };
// Significands at which the 16 bins of an octave begin, then thresholds as bits, then the numbers of rows.
layout(std430, set = 0, binding = 1) readonly buffer T { uint table[]; };
layout(std430, set = 0, binding = 2) buffer S { float sums[]; }; // planes of one number a column
layout(std430, set = 0, binding = 3) buffer C { uint counts[]; };
layout(push_constant) uniform Push
{
    uint cols, base_x, thresholds, first_entry, entries; // entries of the table that name rows
    uint first_row;  // the row at base_x
    uint row_number; // of row 0 among all rows, for the first that is not finite
    uint fresh;      // 1: nothing was summed yet
} p;

const uint OCTAVE_BINS = 16u;
const uint BINS = 1024u;
const int FIRST_EXPONENT = -40;
// counts: ~number of the first row that is not finite (0: none), zeros, bins.
const uint NOT_FINITE = 0u, ZEROS = 1u, FIRST_BIN = 2u;
// sums: planes 0 to 12, then one for each threshold.
const uint PIVOT = 0u, POWERS = 1u, ABSOLUTE = 9u, LOW = 11u, HIGH = 12u, ABOVE = 13u;
const uint PIVOT_ROWS = 64u;
const uint INFINITE = 0x7F800000u;

shared uint bins[BINS + 1u]; // and the zeros

#include "common/groups.glsl"
#include "common/two_float.glsl"

uint bits_at(uint entry, uint column)
{
    return x[p.base_x + (table[p.first_entry + entry] - p.first_row) * p.cols + column];
}

void count_size(uint size)
{
    if (size == 0u) {
        atomicAdd(bins[BINS], 1u);
        return;
    }
    const int octave = int(size >> 23) - 127 - FIRST_EXPONENT;
    const uint significand = size & 0x7FFFFFu;
    uint within = 0u;
    for (uint width = OCTAVE_BINS / 2u; width > 0u; width /= 2u) {
        if (significand >= table[within + width])
            within += width;
    }
    atomicAdd(bins[octave < 0 ? 0u : min(uint(octave) * OCTAVE_BINS + within, BINS - 1u)], 1u);
}

float mean_of_first(uint column)
{
    uint rows = 1u; // a power of two: the mean of equal numbers is that number
    while (2u * rows <= min(p.entries, PIVOT_ROWS))
        rows *= 2u;
    float mean = 0.0;
    for (uint i = 0u; i < rows; ++i) {
        const uint bits = bits_at(i, column);
        if ((bits & 0x7FFFFFFFu) < INFINITE)
            mean += uintBitsToFloat(bits) / float(rows);
    }
    return mean;
}

vec2 load_pair(uint plane, uint column)
{
    return vec2(sums[plane * p.cols + column], sums[(plane + 1u) * p.cols + column]);
}

void store_pair(uint plane, uint column, vec2 value)
{
    sums[plane * p.cols + column] = value.x;
    sums[(plane + 1u) * p.cols + column] = value.y;
}

void sum_column(uint column)
{
    const bool fresh = p.fresh != 0u;
    const float pivot = fresh ? mean_of_first(column) : sums[PIVOT * p.cols + column];
    vec2 powers[4];
    for (uint k = 0u; k < 4u; ++k)
        powers[k] = fresh ? vec2(0.0) : load_pair(POWERS + 2u * k, column);
    vec2 absolute = fresh ? vec2(0.0) : load_pair(ABSOLUTE, column);
    float low = fresh ? uintBitsToFloat(0x7F7FFFFFu) : sums[LOW * p.cols + column];
    float high = fresh ? -uintBitsToFloat(0x7F7FFFFFu) : sums[HIGH * p.cols + column];
    for (uint k = 0u; k < p.thresholds && fresh; ++k)
        sums[(ABOVE + k) * p.cols + column] = 0.0;
    for (uint i = 0u; i < p.entries; ++i) {
        const uint bits = bits_at(i, column);
        const uint size = bits & 0x7FFFFFFFu;
        if (size >= INFINITE) {
            atomicMax(counts[NOT_FINITE], ~(p.row_number + table[p.first_entry + i]));
            continue;
        }
        const float value = uintBitsToFloat(bits);
        precise float distance = value - pivot;
        precise float square = distance * distance;
        powers[0] = add_float(powers[0], distance);
        powers[1] = add_float(powers[1], square);
        powers[2] = add_float(powers[2], square * distance);
        powers[3] = add_float(powers[3], square * square);
        absolute = add_float(absolute, abs(value));
        low = min(low, value);
        high = max(high, value);
        count_size(size);
        for (uint k = 0u; k < p.thresholds; ++k) {
            if (size >= table[OCTAVE_BINS + k])
                sums[(ABOVE + k) * p.cols + column] += 1.0;
        }
    }
    sums[PIVOT * p.cols + column] = pivot;
    for (uint k = 0u; k < 4u; ++k)
        store_pair(POWERS + 2u * k, column, powers[k]);
    store_pair(ABSOLUTE, column, absolute);
    sums[LOW * p.cols + column] = low;
    sums[HIGH * p.cols + column] = high;
}

void main()
{
    const uint lane = gl_LocalInvocationIndex;
    for (uint i = lane; i <= BINS; i += LANES)
        bins[i] = 0u;
    barrier();
    const uint column = group_index() * LANES + lane;
    if (column < p.cols)
        sum_column(column);
    barrier();
    for (uint i = lane; i <= BINS; i += LANES) {
        if (bins[i] != 0u)
            atomicAdd(counts[i == BINS ? ZEROS : FIRST_BIN + i], bins[i]);
    }
}
