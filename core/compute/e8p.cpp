// SPDX-License-Identifier: GPL-3.0-or-later
// The codebook is 256 patterns of positive half-odd numbers × 2^7 signs (the last sign follows from an even
// sum) × two shifts of ±¼. Patterns 0–226 are all |v| with ‖v‖² ≤ 10 in lexicographic order; 227–255 are 29
// of squared norm 12, five 3/2 and three ½, whose positions the authors chose (methods-joint §1.4 lists
// them).
#include "core/compute/e8p.h"

#include "core/base/multiarch.h"
#include "core/base/thread_pool.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
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
constexpr float k_shift = 0.25F;
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

/// Pairs of coordinates that all singles are made of: two halves from here and one more.
constexpr std::array<std::array<int, 2>, 8> k_half_pairs = {
    {{2, 3}, {0, 1}, {6, 7}, {5, 7}, {4, 7}, {5, 6}, {4, 6}, {4, 5}}};

struct HalfTriple {
    int pair = -1;
    int third = -1;
};

/// The positions in k_norm12 as one of the pairs and the third.
constexpr std::array<HalfTriple, 29> half_triples()
{
    std::array<HalfTriple, 29> triples{};
    for (std::size_t s = 0; s < triples.size(); ++s) {
        const int all = k_half_masks[s];
        for (std::size_t p = 0; p < k_half_pairs.size() && triples[s].pair < 0; ++p) {
            const int both = 1 << k_half_pairs[p][0] | 1 << k_half_pairs[p][1];
            if ((all & both) == both)
                triples[s] = {static_cast<int>(p), std::countr_zero(static_cast<unsigned>(all & ~both))};
        }
    }
    return triples;
}
constexpr std::array<HalfTriple, 29> k_half_triples = half_triples();
static_assert(std::ranges::all_of(k_half_triples, [](const HalfTriple& t) { return t.pair >= 0; }));

/// Sixteen numbers that are computed with as one: vector registers of whatever width there is.
using FloatLanes [[gnu::vector_size(k_lanes * sizeof(float))]] = float;
using IntLanes [[gnu::vector_size(k_lanes * sizeof(int))]] = int;

RANKSCOPE_INLINE void load(const float* from, FloatLanes& to) { std::memcpy(&to, from, sizeof to); }

/// Sixteen points seen from one shift, and the best pattern for each: a class (0–6) or a single (7–35).
/// Larger scores are nearer: score = 2·(|y|·s − repair) − ‖s‖², less ‖y‖² so that shifts compare.
struct ShiftedLanes {
    FloatLanes y[8];
    FloatLanes score;
    IntLanes pattern;
};

/// What all candidates of a shift are scored by.
struct LaneSums {
    FloatLanes magnitude[8];
    FloatLanes top[6]; ///< top[k]: sum of the k largest
    FloatLanes total;
    FloatLanes least;
    IntLanes odd; ///< an odd number of negative signs: all bits, else none
};

/// The larger one first.
template <int I, int J>
RANKSCOPE_INLINE void exchange(FloatLanes (&v)[8])
{
    const FloatLanes first = v[I] > v[J] ? v[I] : v[J];
    v[J] = v[I] > v[J] ? v[J] : v[I];
    v[I] = first;
}

/// Nineteen exchanges sort eight numbers.
RANKSCOPE_INLINE void sort_falling(FloatLanes (&v)[8])
{
    exchange<0, 2>(v), exchange<1, 3>(v), exchange<4, 6>(v), exchange<5, 7>(v);
    exchange<0, 4>(v), exchange<1, 5>(v), exchange<2, 6>(v), exchange<3, 7>(v);
    exchange<0, 1>(v), exchange<2, 3>(v), exchange<4, 5>(v), exchange<6, 7>(v);
    exchange<2, 4>(v), exchange<3, 5>(v);
    exchange<1, 4>(v), exchange<3, 6>(v);
    exchange<1, 2>(v), exchange<3, 4>(v), exchange<5, 6>(v);
}

RANKSCOPE_INLINE void sum_lanes(const ShiftedLanes& shifted, LaneSums& sums)
{
    FloatLanes falling[8];
    sums.total = FloatLanes{};
    sums.odd = IntLanes{};
    for (int i = 0; i < 8; ++i) {
        falling[i] = sums.magnitude[i];
        sums.total += sums.magnitude[i];
        sums.odd ^= shifted.y[i] < 0.0F;
    }
    sort_falling(falling);
    sums.least = falling[7];
    sums.top[0] = FloatLanes{};
    for (int k = 1; k < 6; ++k)
        sums.top[k] = sums.top[k - 1] + falling[k - 1];
}

/// Takes a candidate where it is better.
RANKSCOPE_INLINE void offer(ShiftedLanes& shifted, const FloatLanes& score, const IntLanes& pattern)
{
    const IntLanes better = score > shifted.score;
    shifted.score = better ? score : shifted.score;
    shifted.pattern = better ? pattern : shifted.pattern;
}

RANKSCOPE_INLINE void score_classes(ShiftedLanes& shifted, const LaneSums& sums)
{
    for (int c = 0; c < k_class_count; ++c) {
        const int fives = k_classes[static_cast<std::size_t>(c)][0];
        const int threes = k_classes[static_cast<std::size_t>(c)][1];
        const auto norm = static_cast<float>(2 + 2 * threes + 6 * fives);
        const IntLanes repair = (threes & 1) != 0 ? ~sums.odd : sums.odd;
        const FloatLanes dot = 0.5F * sums.total + sums.top[fives + threes] + sums.top[fives];
        const FloatLanes score = 2.0F * (dot - (repair ? sums.least : FloatLanes{})) - norm;
        offer(shifted, score, IntLanes{} + c);
    }
}

/// What a single costs against 3/2 everywhere: its halves, and where the signs are even the cheapest repair,
/// a at ½ and 3·a at 3/2: the sum of a single is odd. (At ½ 3·a is not less than a, so that the least of all
/// may stand for those at 3/2.) The cheapest single is offered.
RANKSCOPE_INLINE void score_singles(ShiftedLanes& shifted, const LaneSums& sums)
{
    FloatLanes pair_sum[8];
    FloatLanes pair_repair[8];
    const FloatLanes most_repair = sums.odd ? FloatLanes{} : 3.0F * sums.least;
    for (std::size_t p = 0; p < k_half_pairs.size(); ++p) {
        const FloatLanes& a = sums.magnitude[k_half_pairs[p][0]];
        const FloatLanes& b = sums.magnitude[k_half_pairs[p][1]];
        const FloatLanes repair = a < most_repair ? a : most_repair;
        pair_repair[p] = b < repair ? b : repair;
        pair_sum[p] = a + b;
    }
    FloatLanes cheapest = FloatLanes{} + std::numeric_limits<float>::infinity();
    IntLanes pattern = IntLanes{} + k_class_count;
    for (int s = 0; s < 29; ++s) {
        const HalfTriple& triple = k_half_triples[static_cast<std::size_t>(s)];
        const FloatLanes& c = sums.magnitude[triple.third];
        const FloatLanes& repair = pair_repair[triple.pair];
        const FloatLanes cost = pair_sum[triple.pair] + c + (c < repair ? c : repair);
        const IntLanes better = cost < cheapest;
        cheapest = better ? cost : cheapest;
        pattern = better ? IntLanes{} + (k_class_count + s) : pattern;
    }
    offer(shifted, 2.0F * (1.5F * sums.total - cheapest) - 12.0F, pattern);
}

RANKSCOPE_MULTIARCH
void best_patterns(const E8Lanes& points, float shift, ShiftedLanes& shifted)
{
    LaneSums sums;
    FloatLanes norm{};
    for (int i = 0; i < 8; ++i) {
        load(points.coordinate[i], shifted.y[i]);
        shifted.y[i] -= shift;
        sums.magnitude[i] = shifted.y[i] < 0.0F ? -shifted.y[i] : shifted.y[i];
        norm += shifted.y[i] * shifted.y[i];
    }
    sum_lanes(shifted, sums);
    shifted.score = FloatLanes{} - std::numeric_limits<float>::infinity();
    shifted.pattern = IntLanes{};
    score_classes(shifted, sums);
    score_singles(shifted, sums);
    shifted.score -= norm;
}

/// Keeps of both shifts what is nearer, lane by lane; `down` is 1 where that is the second.
RANKSCOPE_MULTIARCH
void choose_shift(ShiftedLanes& shifted, const ShiftedLanes& other, int (&down)[k_lanes])
{
    const IntLanes better = other.score > shifted.score;
    shifted.pattern = better ? other.pattern : shifted.pattern;
    for (int i = 0; i < 8; ++i)
        shifted.y[i] = better ? other.y[i] : shifted.y[i];
    const IntLanes ones = better & 1;
    std::memcpy(down, &ones, sizeof ones);
}

/// Place of |y_i| when the largest comes first, ties by index.
RANKSCOPE_INLINE void rank_lanes(const ShiftedLanes& shifted, IntLanes (&rank)[8])
{
    FloatLanes magnitude[8];
    for (int i = 0; i < 8; ++i) {
        magnitude[i] = shifted.y[i] < 0.0F ? -shifted.y[i] : shifted.y[i];
        rank[i] = IntLanes{} + (7 - i); // as if all behind it were larger
    }
    for (int i = 0; i < 8; ++i) {
        for (int j = i + 1; j < 8; ++j) {
            const IntLanes first = magnitude[i] >= magnitude[j]; // −1 where it is
            rank[i] += first;
            rank[j] -= first;
        }
    }
}

/// The pattern's entries (digit + ½) and the signs of y, with the one flipped that costs least if their
/// parity does not fit; key and signs for the code. `down` is 1 where the shift is −¼.
struct SignedLanes {
    int key[k_lanes];
    int low[k_lanes];
};

/// What a pattern says of the places that it has ranked.
struct PatternLanes {
    IntLanes fives;  ///< so many of the largest are 5/2
    IntLanes large;  ///< and up to here 3/2
    IntLanes halves; ///< coordinates that are ½ nevertheless, as bits
};

RANKSCOPE_INLINE void load_patterns(const ShiftedLanes& shifted, PatternLanes& lanes)
{
    for (int lane = 0; lane < k_lanes; ++lane) {
        const int pattern = shifted.pattern[lane];
        const bool single = pattern >= k_class_count;
        const auto& entries = k_classes[static_cast<std::size_t>(single ? 0 : pattern)];
        lanes.fives[lane] = entries[0];
        lanes.large[lane] = single ? 8 : entries[0] + entries[1];
        lanes.halves[lane] = single ? k_half_masks[static_cast<std::size_t>(pattern - k_class_count)] : 0;
    }
}

RANKSCOPE_MULTIARCH
void sign_patterns(const ShiftedLanes& shifted, const int (&down)[k_lanes], E8Lanes& values,
                   SignedLanes& code)
{
    IntLanes rank[8];
    rank_lanes(shifted, rank);
    PatternLanes pattern;
    load_patterns(shifted, pattern);
    IntLanes digits[8];
    IntLanes key{};
    IntLanes odd{};   // all bits where the digits' sum is odd
    IntLanes unfit{}; // and where the signs do not fit to it
    IntLanes cheapest{};
    FloatLanes cost = FloatLanes{} + std::numeric_limits<float>::infinity();
    for (int i = 0; i < 8; ++i) {
        const IntLanes ranked = (rank[i] < pattern.fives   ? IntLanes{} + 2
                                 : rank[i] < pattern.large ? IntLanes{} + 1
                                                           : IntLanes{});
        digits[i] = (pattern.halves >> i & 1) != 0 ? IntLanes{} : ranked;
        key = 3 * key + digits[i];
        const IntLanes own_odd = (digits[i] & 1) != 0;
        const IntLanes negative = shifted.y[i] < 0.0F;
        odd ^= own_odd;
        unfit ^= own_odd ^ negative;
        const FloatLanes magnitude = negative ? -shifted.y[i] : shifted.y[i];
        const FloatLanes own = magnitude * (__builtin_convertvector(digits[i], FloatLanes) + 0.5F);
        cheapest = own < cost ? IntLanes{} + i : cheapest;
        cost = own < cost ? own : cost;
    }
    IntLanes shifted_down;
    std::memcpy(&shifted_down, down, sizeof shifted_down);
    const FloatLanes shift = shifted_down != 0 ? FloatLanes{} - k_shift : FloatLanes{} + k_shift;
    IntLanes low{};
    for (int i = 0; i < 8; ++i) {
        const IntLanes negative = (shifted.y[i] < 0.0F) ^ (unfit & (cheapest == i));
        const FloatLanes entry = __builtin_convertvector(digits[i], FloatLanes) + 0.5F;
        const FloatLanes value = (negative ? -entry : entry) + shift;
        std::memcpy(values.coordinate[i], &value, sizeof value);
        const IntLanes sign = i == 7 ? negative ^ odd : negative;
        low |= (sign & 1) << k_sign_bit[static_cast<std::size_t>(i)];
    }
    std::memcpy(code.key, &key, sizeof key);
    std::memcpy(code.low, &low, sizeof low);
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
    ShiftedLanes shifted;
    ShiftedLanes other;
    int down[k_lanes];
    SignedLanes signs;
    best_patterns(points, k_shift, shifted);
    best_patterns(points, -k_shift, other);
    choose_shift(shifted, other, down);
    sign_patterns(shifted, down, values, signs);
    for (int lane = 0; lane < k_lanes; ++lane) {
        const int row = patterns().index[static_cast<std::size_t>(signs.key[lane])];
        codes[lane] = static_cast<std::uint16_t>(static_cast<unsigned>(row) << 8
                                                 | static_cast<unsigned>(signs.low[lane] ^ down[lane]));
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
