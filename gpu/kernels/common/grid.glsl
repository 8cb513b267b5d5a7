// SPDX-License-Identifier: GPL-3.0-or-later
// Integer code of x on a grid: clamped first, which gives the same as rounding first; halves go to even.
float grid_code(float x, float scale, float lowest, float span)
{
    precise float quotient = x / scale;
    return roundEven(clamp(quotient, lowest, lowest + span));
}
