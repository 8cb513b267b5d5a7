// SPDX-License-Identifier: GPL-3.0-or-later
// Sum of pairs of floats over the LANES threads of a group, known to all of them afterwards; after two_float.glsl.
shared float reduced_high[LANES];
shared float reduced_low[LANES];

vec2 reduce_pair(vec2 value)
{
    const uint lane = gl_LocalInvocationIndex;
    reduced_high[lane] = value.x;
    reduced_low[lane] = value.y;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width) {
            const vec2 both = add_pair(vec2(reduced_high[lane], reduced_low[lane]),
                                       vec2(reduced_high[lane + width], reduced_low[lane + width]));
            reduced_high[lane] = both.x;
            reduced_low[lane] = both.y;
        }
        barrier();
    }
    const vec2 sum = vec2(reduced_high[0], reduced_low[0]);
    barrier();
    return sum;
}
