// SPDX-License-Identifier: GPL-3.0-or-later
// cap · tanh(x / cap). Not the device's tanh: some give NaN where exp overflows, some lose the digits of small arguments.
float soft_cap(float x, float cap)
{
    const float t = x / cap;
    const float size = abs(t);
    if (size < 0.1) {
        const float square = t * t;
        return x * (1.0 + square * (-0.33333333 + square * (0.13333333 - square * 0.05396825)));
    }
    const float tanh_size = 1.0 - 2.0 / (exp(min(2.0 * size, 80.0)) + 1.0);
    return isnan(t) ? t : cap * (t < 0.0 ? -tanh_size : tanh_size);
}
