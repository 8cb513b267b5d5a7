// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/magnitude_pyramid.h"

#include "core/tensor/row_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

/// The one of larger magnitude; NaN, and what stands for it, wins.
float stronger(float a, float b)
{
    if (!std::isfinite(a) || !std::isfinite(b))
        return std::numeric_limits<float>::quiet_NaN();
    return std::abs(b) > std::abs(a) ? b : a;
}

Matrix halved(const Matrix& finer)
{
    Matrix result((finer.rows() + 1) / 2, (finer.cols() + 1) / 2);
    each_row_tile(0, result.rows(), [&](std::size_t, Index first, Index last) {
        for (Index row = first; row < last; ++row) {
            const float* upper = finer.data() + 2 * row * finer.cols();
            const float* lower = 2 * row + 1 < finer.rows() ? upper + finer.cols() : upper;
            float* target = result.data() + row * result.cols();
            const Index pairs = finer.cols() / 2;
            for (Index j = 0; j < pairs; ++j)
                target[j] = stronger(stronger(upper[2 * j], upper[2 * j + 1]),
                                     stronger(lower[2 * j], lower[2 * j + 1]));
            if (pairs < result.cols())
                target[pairs] = stronger(upper[2 * pairs], lower[2 * pairs]);
        }
    });
    return result;
}

} // namespace

MagnitudePyramid::MagnitudePyramid(Matrix values)
{
    if (values.size() == 0)
        return;
    levels_.push_back(std::move(values));
    while (levels_.back().size() > 1)
        levels_.push_back(halved(levels_.back()));
    measure();
}

void MagnitudePyramid::measure()
{
    struct Part {
        double largest = 0.0;
        double squares = 0.0;
        std::uint64_t finite = 0;
    };
    const Matrix& values = levels_.front();
    std::vector<Part> parts(row_tile_count(values.rows()));
    each_row_tile(0, values.rows(), [&](std::size_t tile, Index first, Index last) {
        Part& part = parts[tile];
        for (Index i = first * values.cols(); i < last * values.cols(); ++i) {
            const double value = values.data()[i];
            if (!std::isfinite(value))
                continue;
            part.largest = std::max(part.largest, std::abs(value));
            part.squares += value * value;
            ++part.finite;
        }
    });
    double squares = 0.0;
    std::uint64_t finite = 0;
    for (const Part& part : parts) {
        largest_ = std::max(largest_, part.largest);
        squares += part.squares;
        finite += part.finite;
    }
    not_finite_ = static_cast<std::uint64_t>(values.size()) - finite;
    rms_ = finite > 0 ? std::sqrt(squares / static_cast<double>(finite)) : 0.0;
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
