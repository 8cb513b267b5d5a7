// SPDX-License-Identifier: GPL-3.0-or-later
// Sums kept as an unevaluated pair high + low: about 48 bits without float64. `precise` keeps the compiler from
// simplifying the error terms away.
vec2 two_sum(float a, float b)
{
    precise float sum = a + b;
    precise float b_part = sum - a;
    precise float error = (a - (sum - b_part)) + (b - b_part);
    return vec2(sum, error);
}

vec2 add_float(vec2 total, float term)
{
    vec2 sum = two_sum(total.x, term);
    precise float low = total.y + sum.y;
    return vec2(sum.x, low);
}

vec2 add_pair(vec2 a, vec2 b)
{
    vec2 sum = two_sum(a.x, b.x);
    precise float low = a.y + b.y + sum.y;
    return vec2(sum.x, low);
}
