// SPDX-License-Identifier: GPL-3.0-or-later
// What an MLP does between its products, and its slope; the codes are those of rankscope::Activation.
const uint SILU = 0;
const uint GELU = 1;
const uint GELU_TANH = 2;
const uint RELU = 3;

// 1 / (1 + exp(−x)); exp(88) would overflow.
float sigmoid(float x) { return 1.0 / (1.0 + exp(min(-x, 80.0))); }

// Φ(x), the distribution function of the normal distribution: Chebyshev approximation of erfc, relative error 1.2e-7
// (Press et al., Numerical Recipes, 6.2).
float normal_distribution(float x)
{
    const float z = abs(x) * 0.70710678;
    const float t = 1.0 / (1.0 + 0.5 * z);
    float sum = 0.17087277;
    sum = sum * t - 0.82215223;
    sum = sum * t + 1.48851587;
    sum = sum * t - 1.13520398;
    sum = sum * t + 0.27886807;
    sum = sum * t - 0.18628806;
    sum = sum * t + 0.09678418;
    sum = sum * t + 0.37409196;
    sum = sum * t + 1.00002368;
    const float tail = 0.5 * t * exp(max(-z * z - 1.26551223 + t * sum, -80.0));
    return x < 0.0 ? tail : 1.0 - tail;
}

// f(x) and f'(x).
vec2 activated(float x, uint activation)
{
    if (activation == SILU) {
        const float s = sigmoid(x);
        return vec2(x * s, s * (1.0 + x * (1.0 - s)));
    }
    if (activation == GELU) {
        const float part = normal_distribution(x);
        return vec2(x * part, part + x * 0.39894228 * exp(max(-0.5 * x * x, -80.0)));
    }
    if (activation == GELU_TANH) { // 0.5·(1 + tanh u) is the sigmoid of 2u
        const float bounded = clamp(x, -30.0, 30.0); // beyond it the sigmoid is 0 or 1, and x³ may overflow
        const float s = sigmoid(1.59576912 * bounded * (1.0 + 0.044715 * bounded * bounded));
        return vec2(x * s, s + bounded * s * (1.0 - s) * 1.59576912 * (1.0 + 0.134145 * bounded * bounded));
    }
    return x < 0.0 ? vec2(0.0) : vec2(x, x > 0.0 ? 1.0 : 0.0); // NaN stays NaN
}
