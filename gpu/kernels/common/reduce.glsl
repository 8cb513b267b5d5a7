// SPDX-License-Identifier: GPL-3.0-or-later
// Sum and maximum over the LANES threads of a group, known to all of them afterwards. The includer declares LANES, a
// power of two.
shared float reduced[LANES];

float reduce_sum(float value)
{
    const uint lane = gl_LocalInvocationIndex;
    reduced[lane] = value;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            reduced[lane] += reduced[lane + width];
        barrier();
    }
    const float sum = reduced[0];
    barrier();
    return sum;
}

float reduce_max(float value)
{
    const uint lane = gl_LocalInvocationIndex;
    reduced[lane] = value;
    barrier();
    for (uint width = LANES / 2u; width > 0u; width /= 2u) {
        if (lane < width)
            reduced[lane] = max(reduced[lane], reduced[lane + width]);
        barrier();
    }
    const float most = reduced[0];
    barrier();
    return most;
}
