// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/magnitude_pyramid.h"

#include "core/base/multiarch.h"
#include "core/tensor/row_tiles.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace rankscope {
namespace {

constexpr std::uint32_t k_magnitude_bits = 0x7FFF'FFFFU;
constexpr std::uint32_t k_infinity_bits = 0x7F80'0000U;
constexpr Index k_lanes = 16;
constexpr int k_levels_per_tile = 6; ///< 64 rows of a tile become one
static_assert(k_rows_per_tile == Index{1} << k_levels_per_tile);

RANKSCOPE_INLINE std::uint32_t magnitude_of(float value)
{
    return std::bit_cast<std::uint32_t>(value) & k_magnitude_bits;
}

/// The one of larger magnitude; as bits, infinity is larger than all numbers, and NaN than infinity.
RANKSCOPE_INLINE float stronger(float a, float b) { return magnitude_of(b) > magnitude_of(a) ? b : a; }

/// What is not finite becomes NaN.
RANKSCOPE_INLINE float marked(float value)
{
    return magnitude_of(value) < k_infinity_bits ? value : std::numeric_limits<float>::quiet_NaN();
}

/// Of two rows (or one twice) the strongest of each 2 × 2 entries; `columns` of one row, `both` as many.
RANKSCOPE_MULTIARCH
void pool_rows(const float* __restrict upper, const float* __restrict lower, Index columns,
               float* __restrict both, float* __restrict target)
{
    for (Index j = 0; j < columns; ++j)
        both[j] = stronger(upper[j], lower[j]);
    const Index pairs = columns / 2;
    for (Index j = 0; j < pairs; ++j)
        target[j] = marked(stronger(both[2 * j], both[2 * j + 1]));
    if (columns % 2 == 1)
        target[pairs] = marked(both[columns - 1]);
}

struct Measures {
    std::uint32_t largest = 0; ///< as bits
    std::uint64_t finite = 0;
    double squares = 0.0;
};

RANKSCOPE_INLINE void measure(float value, std::uint32_t& largest, std::uint32_t& finite, double& squares)
{
    const std::uint32_t magnitude = magnitude_of(value);
    const bool number = magnitude < k_infinity_bits;
    const std::uint32_t here = number ? magnitude : 0U;
    const double known = number ? static_cast<double>(value) : 0.0;
    largest = largest < here ? here : largest;
    finite += number ? 1U : 0U;
    squares += known * known;
}

/// Adds one row. Lanes are summed in a fixed order.
RANKSCOPE_MULTIARCH
void measure_row(const float* __restrict values, Index count, Measures& sum)
{
    std::uint32_t largest[k_lanes] = {};
    std::uint32_t finite[k_lanes] = {};
    double squares[k_lanes] = {};
    const Index whole = count - count % k_lanes;
    for (Index first = 0; first < whole; first += k_lanes)
        for (Index lane = 0; lane < k_lanes; ++lane)
            measure(values[first + lane], largest[lane], finite[lane], squares[lane]);
    for (Index i = whole; i < count; ++i)
        measure(values[i], largest[i - whole], finite[i - whole], squares[i - whole]);
    for (Index lane = 0; lane < k_lanes; ++lane) {
        sum.largest = std::max(sum.largest, largest[lane]);
        sum.finite += finite[lane];
        sum.squares += squares[lane];
    }
}

/// Rows [first, last) of `coarser`, from the two rows of `finer` that each covers.
void halve(const Matrix& finer, Index first, Index last, Matrix& coarser, std::vector<float>& both)
{
    for (Index row = first; row < last; ++row) {
        const float* upper = finer.data() + 2 * row * finer.cols();
        const float* lower = 2 * row + 1 < finer.rows() ? upper + finer.cols() : upper;
        pool_rows(upper, lower, finer.cols(), both.data(), coarser.data() + row * coarser.cols());
    }
}

} // namespace

MagnitudePyramid::MagnitudePyramid(Matrix values)
{
    if (values.size() == 0)
        return;
    levels_.push_back(std::move(values));
    while (levels_.back().size() > 1)
        levels_.emplace_back((levels_.back().rows() + 1) / 2, (levels_.back().cols() + 1) / 2);
    build();
}

/// A tile of rows is read once: its measures and its part of the first levels are made while it is at hand.
void MagnitudePyramid::build()
{
    const Index rows = levels_.front().rows();
    const std::size_t count = levels_.size();
    const std::size_t by_tiles = std::min<std::size_t>(count, k_levels_per_tile + 1);
    std::vector<Measures> parts(row_tile_count(rows));
    each_row_tile(0, rows, [&](std::size_t tile, Index first, Index last) {
        std::vector<float> both(static_cast<std::size_t>(levels_.front().cols()));
        for (Index row = first; row < last; row += 2) {
            for (Index one = row; one < std::min(row + 2, last); ++one)
                measure_row(levels_.front().row(one).data(), levels_.front().cols(), parts[tile]);
            if (by_tiles > 1)
                halve(levels_[0], row / 2, row / 2 + 1, levels_[1], both);
        }
        for (std::size_t k = 2; k < by_tiles; ++k)
            halve(levels_[k - 1], first >> k, ((last - 1) >> k) + 1, levels_[k], both);
    });
    std::vector<float> both(static_cast<std::size_t>(levels_.front().cols()));
    for (std::size_t k = by_tiles; k < count; ++k)
        halve(levels_[k - 1], 0, levels_[k].rows(), levels_[k], both);
    Measures all;
    for (const Measures& part : parts) {
        all.largest = std::max(all.largest, part.largest);
        all.finite += part.finite;
        all.squares += part.squares;
    }
    largest_ = static_cast<double>(std::bit_cast<float>(all.largest));
    not_finite_ = static_cast<std::uint64_t>(levels_.front().size()) - all.finite;
    rms_ = all.finite > 0 ? std::sqrt(all.squares / static_cast<double>(all.finite)) : 0.0;
}

std::size_t MagnitudePyramid::bytes() const
{
    std::size_t sum = 0;
    for (const Matrix& level : levels_)
        sum += static_cast<std::size_t>(level.size()) * sizeof(float);
    return sum;
}

MagnitudePyramid difference_of(const MagnitudePyramid& first, const MagnitudePyramid& second)
{
    if (first.empty() || first.rows() != second.rows() || first.cols() != second.cols())
        return {};
    Matrix difference(first.rows(), first.cols());
    each_row_tile(0, first.rows(), [&](std::size_t, Index begin, Index end) {
        difference.middleRows(begin, end - begin) =
            second.level(0).middleRows(begin, end - begin) - first.level(0).middleRows(begin, end - begin);
    });
    return MagnitudePyramid(std::move(difference));
}

} // namespace rankscope
