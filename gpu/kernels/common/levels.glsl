// SPDX-License-Identifier: GPL-3.0-or-later
// What the codes of a scalar grid stand for, as rankscope::ScalarGrid has it. The push constants of the includer hold
// `Levels levels`; `second` is the group's lowest code or, of a grid with minima, its minimum.
const uint PLAIN = 0u;   // value = scale · code
const uint MINIMUM = 1u; // value = scale · code − minimum, codes from 0
const uint TABLE = 2u;   // value = scale · table[code + zero]

struct Levels {
    uint kind, count; // so many entries of the table
    float span;       // codes above the lowest
    float zero;       // place of code 0 in the table
    float table[16];
};

#include "common/grid.glsl"

// Place of the level nearest to x, the lower one on a tie.
uint nearest_level(Levels levels, float x)
{
    uint place = 0u;
    for (uint i = 1u; i < levels.count; ++i)
        place += x > 0.5 * (levels.table[i - 1u] + levels.table[i]) ? 1u : 0u;
    return place;
}

// What a code stands for in units of the scale.
float level_of(Levels levels, float code)
{
    return levels.kind == TABLE ? levels.table[uint(clamp(code + levels.zero, 0.0, float(levels.count) - 1.0))] : code;
}

// The weight that a code stands for.
float value_of(Levels levels, float code, float scale, float second)
{
    precise float value = scale * level_of(levels, code);
    if (levels.kind == MINIMUM) {
        precise float above = value - second;
        return above;
    }
    return value;
}

// The code nearest to `units`, in units of the scale and above the minimum.
float nearest_code(Levels levels, float units, float second)
{
    if (levels.kind == TABLE)
        return float(nearest_level(levels, units)) - levels.zero;
    const float lowest = levels.kind == MINIMUM ? 0.0 : second;
    return roundEven(clamp(units, lowest, lowest + levels.span));
}

// The code nearest to a weight.
float code_of(Levels levels, float x, float scale, float second)
{
    precise float above = levels.kind == MINIMUM ? x + second : x;
    precise float units = above / scale;
    return nearest_code(levels, units, second);
}
