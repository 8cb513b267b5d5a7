// SPDX-License-Identifier: GPL-3.0-or-later
// The codebook is 256 patterns of positive half-odd numbers × 2^7 signs (the last sign follows from an even
// sum) × two shifts of ±¼. Patterns 0–226 are all |v| with ‖v‖² ≤ 10 in lexicographic order; 227–255 are 29
// of squared norm 12, five 3/2 and three ½, whose positions the authors chose (methods-joint §1.4 lists
// them).
#include "core/quantize/e8p.h"

#include "core/base/multiarch.h"
#include "core/base/thread_pool.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

/// Positions of the three ½ in patterns 227–255.
constexpr std::array<std::array<int, 3>, 29> k_norm12 = {{
    {1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}, {3, 6, 7}, {3, 5, 7}, {3, 4, 7}, {3, 5, 6},
    {3, 4, 6}, {3, 4, 5}, {2, 6, 7}, {2, 5, 7}, {2, 4, 7}, {2, 5, 6}, {2, 4, 6}, {2, 4, 5},
    {1, 6, 7}, {1, 5, 7}, {1, 4, 7}, {1, 5, 6}, {1, 4, 6}, {0, 4, 5}, {0, 6, 7}, {0, 5, 7},
    {0, 4, 7}, {0, 5, 6}, {0, 4, 6}, {0, 1, 4}, {2, 3, 7},
}};
/// Bit of the low byte that holds the sign of a coordinate.
constexpr std::array<int, 8> k_sign_bit = {0, 4, 1, 5, 2, 6, 3, 7};
/// (entries 5/2, entries 3/2) of the seven permutation classes.
constexpr std::array<std::array<int, 2>, 7> k_classes = {
    {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 0}, {1, 1}}};

using Digits = std::array<int, 8>; // a pattern's entry is digit + ½

int digits_key(const Digits& digits)
{
    int key = 0;
    for (const int digit : digits)
        key = 3 * key + digit;
    return key;
}

struct Patterns {
    std::array<Digits, 256> digits{};
    std::array<int, 6561> index{}; ///< pattern of a key, −1 where there is none

    Patterns()
    {
        index.fill(-1);
        int count = 0;
        for (int key = 0; key < 6561; ++key) {
            Digits pattern{};
            int rest = key;
            int norm4 = 0; // four times the squared norm
            for (std::size_t i = 8; i-- > 0;) {
                pattern[i] = rest % 3;
                rest /= 3;
                norm4 += (2 * pattern[i] + 1) * (2 * pattern[i] + 1);
            }
            if (norm4 <= 40)
                add(pattern, count++);
        }
        for (const auto& halves : k_norm12) {
            Digits pattern{};
            pattern.fill(1);
            for (const int position : halves)
                pattern[static_cast<std::size_t>(position)] = 0;
            add(pattern, count++);
        }
    }

    void add(const Digits& pattern, int place)
    {
        digits[static_cast<std::size_t>(place)] = pattern;
        index[static_cast<std::size_t>(digits_key(pattern))] = place;
    }
};

const Patterns& patterns()
{
    static const Patterns instance;
    return instance;
}

/// The sum of a pattern is 4 plus its digits.
bool odd_sum(const Digits& pattern)
{
    int sum = 0;
    for (const int digit : pattern)
        sum += digit;
    return sum % 2 != 0;
}

constexpr int k_lanes = k_e8_lanes;
constexpr int k_class_count = static_cast<int>(k_classes.size());

/// Bit i is set where a single pattern has ½ at coordinate i.
constexpr std::array<int, 29> half_masks()
{
    std::array<int, 29> masks{};
    for (std::size_t s = 0; s < masks.size(); ++s)
        for (const int position : k_norm12[s])
            masks[s] |= 1 << position;
    return masks;
}
constexpr std::array<int, 29> k_half_masks = half_masks();

/// Sixteen points seen from one shift, and the best pattern for each: a class (0–6) or a single (7–35).
/// Larger scores are nearer: score = 2·(|y|·s − repair) − ‖s‖², less ‖y‖² so that shifts compare.
struct ShiftedLanes {
    float y[8][k_lanes];
    int rank[8][k_lanes]; ///< place of |y_i| when the largest comes first, ties by index
    float score[k_lanes];
    int pattern[k_lanes];
};

/// What all candidates of a shift are scored by.
struct LaneSums {
    float magnitude[8][k_lanes];
    float top[6][k_lanes]; ///< top[k]: sum of the k largest
    float total[k_lanes];
    float least[k_lanes];
    int odd[k_lanes]; ///< an odd number of negative signs
};

RANKSCOPE_INLINE void rank_lanes(ShiftedLanes& shifted, const LaneSums& sums)
{
    for (int i = 0; i < 8; ++i) {
        for (int lane = 0; lane < k_lanes; ++lane)
            shifted.rank[i][lane] = 0;
        for (int j = 0; j < 8; ++j) {
            if (j == i)
                continue;
            for (int lane = 0; lane < k_lanes; ++lane) {
                const float own = sums.magnitude[i][lane];
                const float other = sums.magnitude[j][lane];
                shifted.rank[i][lane] += j < i ? (other >= own ? 1 : 0) : (other > own ? 1 : 0);
            }
        }
    }
}

RANKSCOPE_INLINE void sum_lanes(const ShiftedLanes& shifted, LaneSums& sums)
{
    for (int lane = 0; lane < k_lanes; ++lane) {
        sums.total[lane] = 0.0F;
        sums.least[lane] = sums.magnitude[0][lane];
        sums.odd[lane] = 0;
    }
    for (int k = 0; k < 6; ++k)
        for (int lane = 0; lane < k_lanes; ++lane)
            sums.top[k][lane] = 0.0F;
    for (int i = 0; i < 8; ++i) {
        for (int lane = 0; lane < k_lanes; ++lane) {
            const float a = sums.magnitude[i][lane];
            sums.total[lane] += a;
            sums.least[lane] = a < sums.least[lane] ? a : sums.least[lane];
            sums.odd[lane] ^= shifted.y[i][lane] < 0.0F ? 1 : 0;
        }
        for (int k = 1; k < 6; ++k)
            for (int lane = 0; lane < k_lanes; ++lane)
                sums.top[k][lane] += shifted.rank[i][lane] < k ? sums.magnitude[i][lane] : 0.0F;
    }
}

/// Takes a candidate where it is better.
RANKSCOPE_INLINE void offer(ShiftedLanes& shifted, const float* score, int pattern)
{
    for (int lane = 0; lane < k_lanes; ++lane) {
        const bool better = score[lane] > shifted.score[lane];
        shifted.score[lane] = better ? score[lane] : shifted.score[lane];
        shifted.pattern[lane] = better ? pattern : shifted.pattern[lane];
    }
}

RANKSCOPE_INLINE void score_classes(ShiftedLanes& shifted, const LaneSums& sums)
{
    float score[k_lanes];
    for (int c = 0; c < k_class_count; ++c) {
        const int fives = k_classes[static_cast<std::size_t>(c)][0];
        const int threes = k_classes[static_cast<std::size_t>(c)][1];
        const auto norm = static_cast<float>(2 + 2 * threes + 6 * fives);
        for (int lane = 0; lane < k_lanes; ++lane) {
            const float dot =
                0.5F * sums.total[lane] + sums.top[fives + threes][lane] + sums.top[fives][lane];
            const bool repair = sums.odd[lane] != (threes & 1);
            score[lane] = 2.0F * (dot - (repair ? sums.least[lane] : 0.0F)) - norm;
        }
        offer(shifted, score, c);
    }
}

/// Their sum is odd, so that an even number of negative signs costs a repair: the cheapest of a at ½ and 3·a
/// at 3/2. (At ½ 3·a is not less than a, so that the least of all may stand for those at 3/2.)
RANKSCOPE_INLINE void score_singles(ShiftedLanes& shifted, const LaneSums& sums)
{
    float score[k_lanes];
    for (int s = 0; s < 29; ++s) {
        const auto& halves = k_norm12[static_cast<std::size_t>(s)];
        const float* a = sums.magnitude[halves[0]];
        const float* b = sums.magnitude[halves[1]];
        const float* c = sums.magnitude[halves[2]];
        for (int lane = 0; lane < k_lanes; ++lane) {
            float cheapest = 3.0F * sums.least[lane];
            cheapest = a[lane] < cheapest ? a[lane] : cheapest;
            cheapest = b[lane] < cheapest ? b[lane] : cheapest;
            cheapest = c[lane] < cheapest ? c[lane] : cheapest;
            const float repair = sums.odd[lane] != 0 ? 0.0F : cheapest;
            score[lane] = 2.0F * (1.5F * sums.total[lane] - (a[lane] + b[lane] + c[lane]) - repair) - 12.0F;
        }
        offer(shifted, score, k_class_count + s);
    }
}

RANKSCOPE_MULTIARCH
void best_patterns(const E8Lanes& points, float shift, ShiftedLanes& shifted)
{
    LaneSums sums;
    for (int i = 0; i < 8; ++i) {
        for (int lane = 0; lane < k_lanes; ++lane) {
            const float y = points.coordinate[i][lane] - shift;
            shifted.y[i][lane] = y;
            sums.magnitude[i][lane] = y < 0.0F ? -y : y;
        }
    }
    rank_lanes(shifted, sums);
    sum_lanes(shifted, sums);
    for (int lane = 0; lane < k_lanes; ++lane) {
        shifted.score[lane] = -std::numeric_limits<float>::infinity();
        shifted.pattern[lane] = 0;
    }
    score_classes(shifted, sums);
    score_singles(shifted, sums);
    for (int i = 0; i < 8; ++i)
        for (int lane = 0; lane < k_lanes; ++lane)
            shifted.score[lane] -= shifted.y[i][lane] * shifted.y[i][lane];
}

/// The pattern's entries (digit + ½) and the signs of y, with the one flipped that costs least if their
/// parity does not fit; key and signs for the code.
struct SignedLanes {
    int key[k_lanes];
    int low[k_lanes];
};

RANKSCOPE_MULTIARCH
void sign_patterns(const ShiftedLanes& shifted, float shift, E8Lanes& values, SignedLanes& code)
{
    int digits[8][k_lanes];
    int odd[k_lanes]; // signs that are negative and digits, modulo 2
    int odd_digits[k_lanes];
    int cheapest[k_lanes];
    float cost[k_lanes];
    for (int lane = 0; lane < k_lanes; ++lane) {
        odd_digits[lane] = 0;
        odd[lane] = 0;
        cheapest[lane] = 0;
        cost[lane] = std::numeric_limits<float>::infinity();
        code.key[lane] = 0;
        code.low[lane] = 0;
    }
    int fives[k_lanes];
    int large[k_lanes];
    int mask[k_lanes];
    for (int lane = 0; lane < k_lanes; ++lane) {
        const int pattern = shifted.pattern[lane];
        const bool single = pattern >= k_class_count;
        const auto& entries = k_classes[static_cast<std::size_t>(single ? 0 : pattern)];
        fives[lane] = entries[0];
        large[lane] = single ? 8 : entries[0] + entries[1];
        mask[lane] = single ? k_half_masks[static_cast<std::size_t>(pattern - k_class_count)] : 0;
    }
    for (int i = 0; i < 8; ++i) {
        for (int lane = 0; lane < k_lanes; ++lane) {
            const int rank = shifted.rank[i][lane];
            int digit = rank < fives[lane] ? 2 : rank < large[lane] ? 1 : 0;
            digit = (mask[lane] >> i & 1) != 0 ? 0 : digit;
            digits[i][lane] = digit;
            code.key[lane] = 3 * code.key[lane] + digit;
            odd_digits[lane] ^= digit & 1;
            const float y = shifted.y[i][lane];
            odd[lane] ^= y < 0.0F ? 1 : 0;
            const float own = (y < 0.0F ? -y : y) * (static_cast<float>(digit) + 0.5F);
            cheapest[lane] = own < cost[lane] ? i : cheapest[lane];
            cost[lane] = own < cost[lane] ? own : cost[lane];
        }
    }
    for (int i = 0; i < 8; ++i) {
        const int bit = k_sign_bit[static_cast<std::size_t>(i)];
        for (int lane = 0; lane < k_lanes; ++lane) {
            int negative = shifted.y[i][lane] < 0.0F ? 1 : 0;
            negative ^= cheapest[lane] == i && odd[lane] != odd_digits[lane] ? 1 : 0;
            const float entry = static_cast<float>(digits[i][lane]) + 0.5F;
            values.coordinate[i][lane] = (negative != 0 ? -entry : entry) + shift;
            code.low[lane] |= (i == 7 ? negative ^ odd_digits[lane] : negative) << bit;
        }
    }
}

} // namespace

E8Point e8p_decode(std::uint16_t code)
{
    const Digits& pattern = patterns().digits[code >> 8];
    const bool shifted_down = std::popcount(static_cast<unsigned>(code & 0xFF)) % 2 != 0;
    const unsigned flips = (code & 0xFFU) ^ (shifted_down ? 1U : 0U);
    E8Point point{};
    for (std::size_t i = 0; i < 8; ++i) {
        bool negative = (flips >> k_sign_bit[i] & 1U) != 0;
        if (i == 7)
            negative ^= odd_sum(pattern);
        const float magnitude = static_cast<float>(pattern[i]) + 0.5F;
        point[i] = (negative ? -magnitude : magnitude) + (shifted_down ? -0.25F : 0.25F);
    }
    return point;
}

void e8p_nearest_lanes(const E8Lanes& points, E8Lanes& values, std::uint16_t (&codes)[k_e8_lanes])
{
    constexpr float shifts[2] = {0.25F, -0.25F};
    ShiftedLanes shifted[2];
    E8Lanes candidates[2];
    SignedLanes signs[2];
    for (int down = 0; down < 2; ++down) {
        best_patterns(points, shifts[down], shifted[down]);
        sign_patterns(shifted[down], shifts[down], candidates[down], signs[down]);
    }
    for (int lane = 0; lane < k_lanes; ++lane) {
        const int down = shifted[1].score[lane] > shifted[0].score[lane] ? 1 : 0;
        for (int i = 0; i < 8; ++i)
            values.coordinate[i][lane] = candidates[down].coordinate[i][lane];
        const int row = patterns().index[static_cast<std::size_t>(signs[down].key[lane])];
        codes[lane] = static_cast<std::uint16_t>(static_cast<unsigned>(row) << 8
                                                 | static_cast<unsigned>(signs[down].low[lane] ^ down));
    }
}

void e8p_nearest_lanes(const E8Lanes& points, int bits, E8NearestLanes& nearest)
{
    e8p_nearest_lanes(points, nearest.values, nearest.codes[0]);
    if (bits != 4)
        return;
    constexpr auto residual = static_cast<float>(k_e8p_residual);
    E8Lanes rest;
    for (int i = 0; i < 8; ++i)
        for (int lane = 0; lane < k_lanes; ++lane)
            rest.coordinate[i][lane] =
                (points.coordinate[i][lane] - nearest.values.coordinate[i][lane]) * residual;
    E8Lanes second;
    e8p_nearest_lanes(rest, second, nearest.codes[1]);
    for (int i = 0; i < 8; ++i)
        for (int lane = 0; lane < k_lanes; ++lane)
            nearest.values.coordinate[i][lane] += second.coordinate[i][lane] / residual;
}

namespace {

E8NearestLanes nearest_of_one(const E8Point& x, int bits)
{
    E8Lanes points{};
    for (int i = 0; i < 8; ++i)
        points.coordinate[i][0] = x[static_cast<std::size_t>(i)];
    E8NearestLanes nearest{};
    e8p_nearest_lanes(points, bits, nearest);
    return nearest;
}

E8Point point_of(const E8Lanes& lanes, int lane)
{
    E8Point point{};
    for (int i = 0; i < 8; ++i)
        point[static_cast<std::size_t>(i)] = lanes.coordinate[i][lane];
    return point;
}

} // namespace

E8Nearest e8p_nearest(const E8Point& x)
{
    const E8NearestLanes nearest = nearest_of_one(x, 2);
    return {point_of(nearest.values, 0), nearest.codes[0][0]};
}

E8Nearest4 e8p_nearest_4bit(const E8Point& x)
{
    const E8NearestLanes nearest = nearest_of_one(x, 4);
    return {point_of(nearest.values, 0), {nearest.codes[0][0], nearest.codes[1][0]}};
}

E8Matrix e8p_round(const Matrix& w, int bits, double scale_divisor, bool per_row)
{
    const Index groups = (w.cols() + 7) / 8;
    const std::size_t codes_per_group = bits == 4 ? 2 : 1;
    E8Matrix rounded;
    rounded.values.resize(w.rows(), w.cols());
    rounded.codes.resize(static_cast<std::size_t>(w.rows() * groups) * codes_per_group);
    const auto scale_of = [&](double squares, Index count) {
        const double rms = count == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(count));
        return rms > 0 ? rms / scale_divisor : 1.0;
    };
    if (per_row) {
        rounded.scales.resize(w.rows());
        for (Index r = 0; r < w.rows(); ++r)
            rounded.scales[r] = scale_of(w.row(r).cast<double>().squaredNorm(), w.cols());
    } else {
        rounded.scales = VectorD::Constant(1, scale_of(w.cast<double>().squaredNorm(), w.size()));
    }
    parallel_for(0, w.rows(), [&](std::int64_t r) {
        const auto scale = static_cast<float>(rounded.scales[per_row ? r : 0]);
        for (Index first = 0; first < groups; first += k_lanes) {
            const Index lanes = std::min<Index>(k_lanes, groups - first);
            E8Lanes points{};
            for (Index place = 8 * first; place < std::min(w.cols(), 8 * (first + lanes)); ++place)
                points.coordinate[place % 8][place / 8 - first] = w(r, place) / scale;
            E8NearestLanes nearest;
            e8p_nearest_lanes(points, bits, nearest);
            for (Index place = 8 * first; place < std::min(w.cols(), 8 * (first + lanes)); ++place)
                rounded.values(r, place) = scale * nearest.values.coordinate[place % 8][place / 8 - first];
            for (Index lane = 0; lane < lanes; ++lane)
                for (std::size_t stage = 0; stage < codes_per_group; ++stage)
                    rounded.codes[static_cast<std::size_t>(r * groups + first + lane) * codes_per_group
                                  + stage] = nearest.codes[stage][lane];
        }
    });
    return rounded;
}

} // namespace rankscope
