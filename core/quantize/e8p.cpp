// SPDX-License-Identifier: GPL-3.0-or-later
// The codebook is 256 patterns of positive half-odd numbers × 2^7 signs (the last sign follows from an even
// sum) × two shifts of ±¼. Patterns 0–226 are all |v| with ‖v‖² ≤ 10 in lexicographic order; 227–255 are 29
// of squared norm 12, five 3/2 and three ½, whose positions the authors chose (methods-joint §1.4 lists
// them).
#include "core/quantize/e8p.h"

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
constexpr int k_small_patterns = 227;

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

/// The best pattern for |y| under one shift: score = 2·(a·s − repair) − ‖s‖², larger is nearer.
struct Choice {
    float score = -std::numeric_limits<float>::infinity();
    Digits pattern{};
};

Choice best_pattern(const std::array<float, 8>& a, bool odd_signs)
{
    std::array<std::size_t, 8> order = {0, 1, 2, 3, 4, 5, 6, 7};
    std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return a[i] > a[j]; });
    float total = 0.0F;
    std::array<float, 6> top{}; // top[k]: the k largest
    for (std::size_t i = 0; i < 8; ++i) {
        if (i < 5)
            top[i + 1] = top[i] + a[order[i]];
        total += a[i];
    }
    const float least = a[order[7]];

    Choice best;
    int best_class = -1;
    int best_single = -1;
    for (std::size_t c = 0; c < k_classes.size(); ++c) {
        const auto [fives, threes] = k_classes[c];
        const float dot =
            total / 2 + top[static_cast<std::size_t>(fives + threes)] + top[static_cast<std::size_t>(fives)];
        const bool repair = odd_signs != (threes % 2 != 0);
        const float score =
            2 * (dot - (repair ? least : 0.0F)) - static_cast<float>(2 + 2 * threes + 6 * fives);
        if (score > best.score) {
            best.score = score;
            best_class = static_cast<int>(c);
        }
    }
    for (std::size_t s = 0; s < k_norm12.size(); ++s) {
        float halves = 0.0F;
        float cheapest = std::numeric_limits<float>::infinity();
        std::array<bool, 8> is_half{};
        for (const int position : k_norm12[s]) {
            const auto i = static_cast<std::size_t>(position);
            is_half[i] = true;
            halves += a[i];
        }
        if (!odd_signs) { // the sum is odd: one sign has to flip
            for (std::size_t i = 0; i < 8; ++i)
                cheapest = std::min(cheapest, is_half[i] ? a[i] : 3 * a[i]);
        }
        const float score = 2 * (1.5F * total - halves - (odd_signs ? 0.0F : cheapest)) - 12;
        if (score > best.score) {
            best.score = score;
            best_single = static_cast<int>(s);
        }
    }
    if (best_single >= 0) {
        best.pattern = patterns().digits[static_cast<std::size_t>(k_small_patterns + best_single)];
    } else if (best_class >= 0) {
        const auto [fives, threes] = k_classes[static_cast<std::size_t>(best_class)];
        for (int i = 0; i < fives + threes; ++i)
            best.pattern[order[static_cast<std::size_t>(i)]] = i < fives ? 2 : 1;
    }
    return best;
}

/// Signs of y, with the one flipped that costs least if their parity does not fit the pattern.
std::array<bool, 8> signs_for(const Digits& pattern, const E8Point& y)
{
    std::array<bool, 8> negative{};
    bool odd = false;
    std::size_t cheapest = 0;
    float least = std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < 8; ++i) {
        negative[i] = y[i] < 0;
        odd ^= negative[i];
        const float cost = std::abs(y[i]) * (static_cast<float>(pattern[i]) + 0.5F);
        if (cost < least) {
            least = cost;
            cheapest = i;
        }
    }
    if (odd != odd_sum(pattern))
        negative[cheapest] = !negative[cheapest];
    return negative;
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

E8Nearest e8p_nearest(const E8Point& x)
{
    float best_distance = std::numeric_limits<float>::infinity();
    Digits pattern{};
    E8Point shifted{};
    bool down = false;
    for (const bool try_down : {false, true}) {
        E8Point y{};
        std::array<float, 8> a{};
        bool odd = false;
        float norm = 0.0F;
        for (std::size_t i = 0; i < 8; ++i) {
            y[i] = x[i] - (try_down ? -0.25F : 0.25F);
            a[i] = std::abs(y[i]);
            odd ^= y[i] < 0;
            norm += y[i] * y[i];
        }
        const Choice choice = best_pattern(a, odd);
        if (norm - choice.score < best_distance) {
            best_distance = norm - choice.score;
            pattern = choice.pattern;
            shifted = y;
            down = try_down;
        }
    }
    std::array<bool, 8> negative = signs_for(pattern, shifted);
    E8Nearest nearest{};
    for (std::size_t i = 0; i < 8; ++i) {
        const float magnitude = static_cast<float>(pattern[i]) + 0.5F;
        nearest.value[i] = (negative[i] ? -magnitude : magnitude) + (down ? -0.25F : 0.25F);
    }
    negative[7] ^= odd_sum(pattern);
    unsigned low = 0;
    for (std::size_t i = 0; i < 8; ++i)
        low |= static_cast<unsigned>(negative[i]) << k_sign_bit[i];
    low ^= static_cast<unsigned>(down);
    const int row = patterns().index[static_cast<std::size_t>(digits_key(pattern))];
    nearest.code = static_cast<std::uint16_t>(static_cast<unsigned>(row) << 8 | low);
    return nearest;
}

E8Nearest4 e8p_nearest_4bit(const E8Point& x)
{
    const E8Nearest first = e8p_nearest(x);
    E8Point rest{};
    for (std::size_t i = 0; i < 8; ++i)
        rest[i] = (x[i] - first.value[i]) * static_cast<float>(k_e8p_residual);
    const E8Nearest second = e8p_nearest(rest);
    E8Nearest4 nearest{first.value, {first.code, second.code}};
    for (std::size_t i = 0; i < 8; ++i)
        nearest.value[i] += second.value[i] / static_cast<float>(k_e8p_residual);
    return nearest;
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
        for (Index g = 0; g < groups; ++g) {
            const Index width = std::min<Index>(8, w.cols() - 8 * g);
            E8Point x{};
            for (Index i = 0; i < width; ++i)
                x[static_cast<std::size_t>(i)] = w(r, 8 * g + i) / scale;
            const auto place = static_cast<std::size_t>(r * groups + g) * codes_per_group;
            E8Point value;
            if (bits == 4) {
                const E8Nearest4 nearest = e8p_nearest_4bit(x);
                value = nearest.value;
                rounded.codes[place] = nearest.codes[0];
                rounded.codes[place + 1] = nearest.codes[1];
            } else {
                const E8Nearest nearest = e8p_nearest(x);
                value = nearest.value;
                rounded.codes[place] = nearest.code;
            }
            for (Index i = 0; i < width; ++i)
                rounded.values(r, 8 * g + i) = scale * value[static_cast<std::size_t>(i)];
        }
    });
    return rounded;
}

} // namespace rankscope
