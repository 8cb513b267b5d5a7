// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/teaching/picture.h"

#include "core/quantize/value_histogram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

struct Describe {
    std::string operator()(const MatrixPicture& picture) const
    {
        return fmt::format("{}: map of {} × {} entries, the largest {:.4g} in magnitude, {} columns marked",
                           picture.title, picture.rows, picture.cols, picture.largest, picture.marked.size());
    }
    std::string operator()(const ChannelPicture& picture) const
    {
        std::string text = fmt::format("{}: {} for each of {} channels", picture.title, picture.y_label,
                                       picture.series.empty() ? 0 : picture.series.front().values.size());
        for (const auto& series : picture.series)
            text += fmt::format("; {}: largest {:.4g}", series.name,
                                series.values.size() > 0 ? series.values.maxCoeff() : 0.0);
        return text + fmt::format("; {} marked", picture.marked.size());
    }
    std::string operator()(const HistogramPicture& picture) const
    {
        std::string text = picture.title + ": distribution of " + picture.x_label;
        for (const auto& series : picture.series)
            text += fmt::format("; {}: from {:.4g} to {:.4g}", series.name, series.lowest, series.highest);
        return text;
    }
    std::string operator()(const CurvePicture& picture) const
    {
        std::string text = fmt::format("{}: {} against {}", picture.title, picture.y_label, picture.x_label);
        for (const auto& series : picture.series)
            if (series.y.size() > 0)
                text += fmt::format("; {}: from {:.4g} to {:.4g}", series.name, series.y[0],
                                    series.y[series.y.size() - 1]);
        return text;
    }
    std::string operator()(const BarsPicture& picture) const
    {
        std::string text = picture.title;
        for (const auto& bar : picture.bars)
            text += fmt::format("; {}: {:.4g}", bar.name, bar.value);
        return text;
    }
    std::string operator()(const RoundingPicture& picture) const
    {
        std::string text = picture.title;
        for (const auto& weight : picture.weights)
            text += fmt::format("; {} at {:.3g} rounds to {} and to {}", weight.name, weight.position,
                                weight.nearest, weight.learned);
        return text;
    }
};

Index last_of(Index part, Index parts, Index whole) { return (part + 1) * whole / parts; }

} // namespace

std::string describe(const LessonPicture& picture) { return std::visit(Describe{}, picture); }

Matrix pooled(const Eigen::Ref<const Matrix>& matrix, Index side)
{
    const Index rows = std::min(side, matrix.rows());
    const Index cols = std::min(side, matrix.cols());
    Matrix cells = Matrix::Zero(rows, cols);
    for (Index i = 0, row = 0; i < rows; ++i)
        for (; row < last_of(i, rows, matrix.rows()); ++row)
            for (Index j = 0, col = 0; j < cols; ++j)
                for (; col < last_of(j, cols, matrix.cols()); ++col)
                    if (std::abs(matrix(row, col)) > std::abs(cells(i, j)))
                        cells(i, j) = matrix(row, col);
    return cells;
}

MatrixPicture matrix_picture(std::string title, const Matrix& matrix, double limit, std::vector<Index> marked)
{
    MatrixPicture picture;
    picture.title = std::move(title);
    picture.x_label = "input channel";
    picture.y_label = "output";
    picture.cells = pooled(matrix, k_map_side);
    picture.rows = matrix.rows();
    picture.cols = matrix.cols();
    picture.largest = matrix.size() > 0 ? static_cast<double>(matrix.cwiseAbs().maxCoeff()) : 0.0;
    picture.limit = limit > 0.0 ? limit : picture.largest > 0.0 ? picture.largest : 1.0;
    picture.marked = std::move(marked);
    return picture;
}

double magnitude_quantile(const Matrix& matrix, double share)
{
    if (matrix.size() == 0)
        return 0.0;
    std::vector<float> values(static_cast<std::size_t>(matrix.size()));
    std::transform(matrix.data(), matrix.data() + matrix.size(), values.begin(),
                   [](float value) { return std::abs(value); });
    const auto at = static_cast<std::ptrdiff_t>(std::floor(share * static_cast<double>(matrix.size() - 1)));
    std::nth_element(values.begin(), values.begin() + at, values.end());
    return static_cast<double>(values[static_cast<std::size_t>(at)]);
}

HistogramPicture histogram_picture(std::string title, std::string x_label,
                                   std::span<const ValueSeries> inputs, Index bins)
{
    HistogramPicture picture;
    picture.title = std::move(title);
    picture.x_label = std::move(x_label);
    const QuantizedMatrix none{};
    const auto counted = [&none](const ValueSeries& input) {
        return HistogramInput{*input.values,
                              input.grid ? *input.grid : none,
                              {},
                              input.grid ? ValueUnit::Steps : ValueUnit::Plain};
    };
    ValueRange range; // holds 0
    for (const ValueSeries& input : inputs) {
        const ValueRange own = value_range(counted(input));
        range = {std::min(range.low, own.low), std::max(range.high, own.high)};
    }
    if (!(range.low < range.high))
        range = {-1.0, 1.0};
    picture.low = range.low;
    picture.high = range.high;
    for (const ValueSeries& input : inputs) {
        const ValueHistogram histogram = value_histogram(counted(input), range, static_cast<int>(bins));
        VectorD counts(bins);
        std::copy(histogram.counts.begin(), histogram.counts.end(), counts.begin());
        picture.series.push_back(
            {input.name, input.role, std::move(counts), histogram.minimum, histogram.maximum});
    }
    return picture;
}

VectorD column_shares(const Matrix& matrix, const VectorD& weights, double whole)
{
    if (!(whole > 0.0))
        return VectorD::Zero(matrix.cols());
    VectorD sums = matrix.cast<double>().colwise().squaredNorm().transpose();
    return sums.cwiseProduct(weights) / whole;
}

double sum_over(const VectorD& values, const std::vector<Index>& marked)
{
    return std::accumulate(marked.begin(), marked.end(), 0.0,
                           [&](double sum, Index channel) { return sum + values[channel]; });
}

Index channels_for_share(const VectorD& values, double share)
{
    std::vector<double> falling(values.data(), values.data() + values.size());
    std::sort(falling.begin(), falling.end(), std::greater<>());
    const double goal = share * values.sum();
    double sum = 0.0;
    Index count = 0;
    while (count < values.size() && sum < goal)
        sum += falling[static_cast<std::size_t>(count++)];
    return count;
}

} // namespace rankscope
