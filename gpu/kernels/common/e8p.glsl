// SPDX-License-Identifier: GPL-3.0-or-later
// The point of the E8P codebook nearest to eight numbers, exactly, as core/compute/e8p.h has it: for each of the two
// shifts seven permutation classes and 29 single patterns are scored by 2·(|y|·s − repair) − ‖s‖² − ‖y‖².
struct LatticePoint {
    float value[8];
    uint code;
};

// Bit i: coordinate i of a single pattern is ½, the others 3/2 (patterns 227 … 255).
const uint E8_HALVES[29] = uint[](14u, 13u, 11u, 7u, 200u, 168u, 152u, 104u, 88u, 56u, 196u, 164u, 148u, 100u, 84u,
                                  52u, 194u, 162u, 146u, 98u, 82u, 49u, 193u, 161u, 145u, 97u, 81u, 19u, 140u);
// Entries 5/2 and 3/2 of the permutation classes.
const uint E8_FIVES[7] = uint[](0u, 0u, 0u, 0u, 0u, 1u, 1u);
const uint E8_THREES[7] = uint[](0u, 1u, 2u, 3u, 4u, 0u, 1u);
const uint E8_SIGN_BIT[8] = uint[](0u, 4u, 1u, 5u, 2u, 6u, 3u, 7u);

#define E8_EXCHANGE(i, j) { const float most = max(v[i], v[j]); v[j] = min(v[i], v[j]); v[i] = most; }

// Nineteen exchanges sort eight numbers, the largest first.
void e8_sort(inout float v[8])
{
    E8_EXCHANGE(0, 2) E8_EXCHANGE(1, 3) E8_EXCHANGE(4, 6) E8_EXCHANGE(5, 7)
    E8_EXCHANGE(0, 4) E8_EXCHANGE(1, 5) E8_EXCHANGE(2, 6) E8_EXCHANGE(3, 7)
    E8_EXCHANGE(0, 1) E8_EXCHANGE(2, 3) E8_EXCHANGE(4, 5) E8_EXCHANGE(6, 7)
    E8_EXCHANGE(2, 4) E8_EXCHANGE(3, 5)
    E8_EXCHANGE(1, 4) E8_EXCHANGE(3, 6)
    E8_EXCHANGE(1, 2) E8_EXCHANGE(3, 4) E8_EXCHANGE(5, 6)
}

// The best pattern for x − shift: a class (0 … 6) or a single (7 … 35), and its score.
uint e8_best_pattern(float x[8], float shift, out float best)
{
    float magnitude[8];
    float falling[8];
    float total = 0.0;
    float norm = 0.0;
    bool odd = false; // an odd number of negative signs
    for (int i = 0; i < 8; ++i) {
        const float y = x[i] - shift;
        magnitude[i] = abs(y);
        falling[i] = magnitude[i];
        total += magnitude[i];
        norm += y * y;
        odd = odd != (y < 0.0);
    }
    e8_sort(falling);
    const float least = falling[7];
    float top[6];
    top[0] = 0.0;
    for (int k = 1; k < 6; ++k)
        top[k] = top[k - 1] + falling[k - 1];

    uint pattern = 0u;
    best = -3e38;
    for (uint c = 0u; c < 7u; ++c) {
        const uint fives = E8_FIVES[c];
        const uint threes = E8_THREES[c];
        const bool repair = ((threes & 1u) != 0u) != odd;
        const float product = 0.5 * total + top[fives + threes] + top[fives];
        const float score = 2.0 * (product - (repair ? least : 0.0)) - float(2u + 2u * threes + 6u * fives);
        if (score > best) {
            best = score;
            pattern = c;
        }
    }
    // What a single costs against 3/2 everywhere: its halves, and where the signs are even the cheapest repair. Their
    // sum is odd.
    float cheapest = 3e38;
    uint single = 0u;
    for (uint s = 0u; s < 29u; ++s) {
        float cost = 0.0;
        float repair = odd ? 0.0 : 3.0 * least;
        for (int i = 0; i < 8; ++i) {
            if ((E8_HALVES[s] >> i & 1u) != 0u) {
                cost += magnitude[i];
                repair = min(repair, magnitude[i]);
            }
        }
        if (cost + repair < cheapest) {
            cheapest = cost + repair;
            single = s;
        }
    }
    const float score = 2.0 * (1.5 * total - cheapest) - 12.0;
    if (score > best) {
        best = score;
        pattern = 7u + single;
    }
    best -= norm;
    return pattern;
}

// Patterns of `places` digits that a budget of eighths of the squared norm allows: a digit 1 costs 1, a 2 costs 3.
uint e8_patterns(uint places, int budget)
{
    if (budget < 0)
        return 0u;
    const uint n = places;
    uint sum = 1u;
    if (budget >= 1)
        sum += n;
    if (budget >= 2 && n >= 2u)
        sum += n * (n - 1u) / 2u;
    if (budget >= 3) // three ones, or a two
        sum += (n >= 3u ? n * (n - 1u) * (n - 2u) / 6u : 0u) + n;
    if (budget >= 4 && n >= 2u) // four ones, or a two and a one
        sum += (n >= 4u ? n * (n - 1u) * (n - 2u) * (n - 3u) / 24u : 0u) + n * (n - 1u);
    return sum;
}

// Row of the codebook's table of patterns: those with ‖s‖² ≤ 10 come in lexicographic order.
uint e8_row(uint digits[8])
{
    int budget = 4;
    uint row = 0u;
    for (int i = 0; i < 8; ++i) {
        const uint places = uint(7 - i);
        for (uint d = 0u; d < digits[i]; ++d)
            row += e8_patterns(places, budget - int(d == 2u ? 3u : d));
        budget -= int(digits[i] == 2u ? 3u : digits[i]);
    }
    return row;
}

// The point nearest to x with its code.
LatticePoint e8p_nearest(float x[8])
{
    float up_score, down_score;
    const uint up = e8_best_pattern(x, 0.25, up_score);
    const uint down = e8_best_pattern(x, -0.25, down_score);
    const bool lower = down_score > up_score;
    const uint pattern = lower ? down : up;
    const float shift = lower ? -0.25 : 0.25;

    const bool single = pattern >= 7u;
    const uint fives = single ? 0u : E8_FIVES[pattern];
    const uint large = single ? 8u : fives + E8_THREES[pattern];
    const uint halves = single ? E8_HALVES[pattern - 7u] : 0u;
    uint digits[8];
    bool odd = false;
    bool unfit = false;
    int cheapest = 0;
    float least = 3e38;
    for (int i = 0; i < 8; ++i) {
        const float y = x[i] - shift;
        uint rank = 0u; // ties by index
        for (int j = 0; j < 8; ++j) {
            const float other = abs(x[j] - shift);
            rank += other > abs(y) || (other == abs(y) && j < i) ? 1u : 0u;
        }
        digits[i] = (halves >> i & 1u) != 0u ? 0u : rank < fives ? 2u : rank < large ? 1u : 0u;
        const bool own_odd = (digits[i] & 1u) != 0u;
        odd = odd != own_odd;
        unfit = unfit != (own_odd != (y < 0.0));
        const float own = abs(y) * (float(digits[i]) + 0.5);
        if (own < least) {
            least = own;
            cheapest = i;
        }
    }
    LatticePoint point;
    uint low = 0u;
    for (int i = 0; i < 8; ++i) {
        const bool negative = (x[i] - shift < 0.0) != (unfit && i == cheapest);
        const float entry = float(digits[i]) + 0.5;
        point.value[i] = (negative ? -entry : entry) + shift;
        if (i == 7 ? negative != odd : negative)
            low |= 1u << E8_SIGN_BIT[i];
    }
    const uint row = single ? 227u + (pattern - 7u) : e8_row(digits);
    point.code = row << 8 | (low ^ (lower ? 1u : 0u));
    return point;
}

// With 4 bits a second point comes close to 3.45 times what the first leaves.
void e8p_nearest_stages(float x[8], uint stages, out float value[8], out uint codes[2])
{
    const LatticePoint first = e8p_nearest(x);
    value = first.value;
    codes[0] = first.code;
    codes[1] = 0u;
    if (stages < 2u)
        return;
    float rest[8];
    for (int i = 0; i < 8; ++i)
        rest[i] = (x[i] - first.value[i]) * 3.45;
    const LatticePoint second = e8p_nearest(rest);
    for (int i = 0; i < 8; ++i)
        value[i] += second.value[i] / 3.45;
    codes[1] = second.code;
}
