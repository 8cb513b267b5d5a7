// SPDX-License-Identifier: GPL-3.0-or-later
//
// Central moments are summed around each piece's own mean and merged by Pébay's formulas: sums of raw fourth
// powers cancel catastrophically as soon as a channel's mean is large against its spread, which is what
// outlier channels are. A piece is copied, strip by strip, into a tile that stays in the first-level cache;
// the loops over it have a fixed width and become vector code on every instruction set.
#include "core/compute/column_statistics.h"

#include "core/base/thread_pool.h"
#include "core/base/multiarch.h"
#include "core/compute/detail/vector_math.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

namespace rankscope {
namespace {

constexpr Index k_lanes = 16;       ///< columns that the loops take at a time
constexpr Index k_strip = 32;       ///< columns of a tile
constexpr Index k_piece_rows = 128; ///< rows of a tile, and of what one task sums
constexpr int k_bins_per_octave = 16;
constexpr int k_first_exponent = -40;
constexpr int k_bins = ColumnStatistics::k_histogram_bins;
constexpr std::size_t k_counters =
    4; ///< histograms side by side: an increment need not wait for the one before

/// First significand (23 bits) of each bin of an octave; the last entry ends the octave.
std::array<std::uint32_t, k_bins_per_octave + 1> octave_edges()
{
    std::array<std::uint32_t, k_bins_per_octave + 1> edges{};
    for (std::size_t bin = 0; bin < k_bins_per_octave; ++bin) {
        const double edge = std::exp2(static_cast<double>(bin) / k_bins_per_octave);
        auto next = static_cast<float>(edge);
        if (static_cast<double>(next) < edge)
            next = std::nextafter(next, 4.0F);
        edges[bin] = std::bit_cast<std::uint32_t>(next) & 0x7FFFFFU;
    }
    edges[k_bins_per_octave] = 0x800000U;
    return edges;
}

/// Bin of a float by its bits: the upper 15 below the sign find a cell that holds one edge at most, and the
/// lower 16 carry into the next bin when they reach it.
struct FloatBins {
    static constexpr std::uint32_t k_cells = 1U << 15;

    std::array<std::uint32_t, k_cells> cells{};

    FloatBins()
    {
        const auto edges = octave_edges();
        for (std::uint32_t cell = 0; cell < k_cells; ++cell) {
            const std::uint32_t begin = (cell & 127U) << 16;
            const auto above = std::upper_bound(edges.begin(), edges.end() - 1, begin);
            const auto within = static_cast<int>(above - edges.begin()) - 1;
            const std::uint32_t next = edges[static_cast<std::size_t>(within) + 1];
            const int bin =
                (static_cast<int>(cell >> 7) - 127 - k_first_exponent) * k_bins_per_octave + within;
            const bool carries = bin >= 0 && bin < k_bins - 1 && next < begin + 0x10000U;
            cells[cell] = (static_cast<std::uint32_t>(std::clamp(bin, 0, k_bins - 1)) << 16)
                          + (carries ? 0x10000U - (next - begin) : 0U);
        }
    }
};

const FloatBins& float_bins()
{
    static const FloatBins bins;
    return bins;
}

/// Bin of a positive double; the outermost bins take what lies beyond.
std::size_t double_bin(double magnitude)
{
    int exponent = 0;
    const double fraction = 2.0 * std::frexp(magnitude, &exponent); // [1, 2)
    static const auto edges = [] {
        std::array<double, k_bins_per_octave> values{};
        for (std::size_t bin = 0; bin < values.size(); ++bin)
            values[bin] = std::exp2(static_cast<double>(bin) / k_bins_per_octave);
        return values;
    }();
    const auto above = std::upper_bound(edges.begin(), edges.end(), fraction);
    const std::int64_t bin =
        std::int64_t{exponent - 1 - k_first_exponent} * k_bins_per_octave + (above - edges.begin()) - 1;
    return static_cast<std::size_t>(std::clamp<std::int64_t>(bin, 0, k_bins - 1));
}

template <class T>
struct Tile {
    alignas(64) T values[k_piece_rows * k_strip];
    Index rows = 0;
};

/// Of k_lanes columns of a tile.
template <class T>
struct Extremes {
    T sum[k_lanes], low[k_lanes], high[k_lanes];
};
struct Powers {
    double left_over[k_lanes], m2[k_lanes], m3[k_lanes], m4[k_lanes], sum_abs[k_lanes];
};

/// Running figures of each row, in k_lanes lanes.
template <class T>
struct RowLanes {
    alignas(64) T largest[k_piece_rows * k_lanes];
    alignas(64) T squares[k_piece_rows * k_lanes];
};

template <class T>
RANKSCOPE_INLINE void sum_extremes(const T* __restrict x, Index rows, Extremes<T>& out, T* __restrict largest,
                                   T* __restrict squares)
{
    T sum[k_lanes] = {};
    T low[k_lanes];
    T high[k_lanes];
    for (Index lane = 0; lane < k_lanes; ++lane)
        low[lane] = high[lane] = x[lane];
    for (Index row = 0; row < rows; ++row) {
        for (Index lane = 0; lane < k_lanes; ++lane) {
            const T value = x[row * k_strip + lane];
            const T size = detail::magnitude(value);
            sum[lane] += value;
            low[lane] = value < low[lane] ? value : low[lane];
            high[lane] = value > high[lane] ? value : high[lane];
            T& most = largest[row * k_lanes + lane];
            most = size > most ? size : most;
            squares[row * k_lanes + lane] += value * value;
        }
    }
    for (Index lane = 0; lane < k_lanes; ++lane) {
        out.sum[lane] = sum[lane];
        out.low[lane] = low[lane];
        out.high[lane] = high[lane];
    }
}

template <class T>
RANKSCOPE_INLINE void sum_powers(const T* __restrict x, Index rows, const double* __restrict mean,
                                 Powers& out)
{
    double left_over[k_lanes] = {};
    double m2[k_lanes] = {};
    double m3[k_lanes] = {};
    double m4[k_lanes] = {};
    double sum_abs[k_lanes] = {};
    for (Index row = 0; row < rows; ++row) {
        for (Index lane = 0; lane < k_lanes; ++lane) {
            const auto value = static_cast<double>(x[row * k_strip + lane]);
            const double distance = value - mean[lane];
            const double square = distance * distance;
            sum_abs[lane] += detail::magnitude(value);
            left_over[lane] += distance;
            m2[lane] += square;
            m3[lane] += square * distance;
            m4[lane] += square * square;
        }
    }
    for (Index lane = 0; lane < k_lanes; ++lane) {
        out.left_over[lane] = left_over[lane];
        out.m2[lane] = m2[lane];
        out.m3[lane] = m3[lane];
        out.m4[lane] = m4[lane];
        out.sum_abs[lane] = sum_abs[lane];
    }
}

template <class T>
RANKSCOPE_INLINE void count_above(const T* __restrict x, Index rows, T threshold, double* __restrict out)
{
    std::int32_t counts[k_lanes] = {};
    for (Index row = 0; row < rows; ++row) {
        for (Index lane = 0; lane < k_lanes; ++lane)
            counts[lane] += detail::magnitude(x[row * k_strip + lane]) >= threshold ? 1 : 0;
    }
    for (Index lane = 0; lane < k_lanes; ++lane)
        out[lane] = static_cast<double>(counts[lane]);
}

// One instance for each type: a template cannot be cloned for several instruction sets.
RANKSCOPE_MULTIARCH void extremes(const float* x, Index rows, Extremes<float>& out, RowLanes<float>& lanes)
{
    sum_extremes(x, rows, out, lanes.largest, lanes.squares);
}
RANKSCOPE_MULTIARCH void extremes(const double* x, Index rows, Extremes<double>& out, RowLanes<double>& lanes)
{
    sum_extremes(x, rows, out, lanes.largest, lanes.squares);
}
RANKSCOPE_MULTIARCH void powers(const float* x, Index rows, const double* mean, Powers& out)
{
    sum_powers(x, rows, mean, out);
}
RANKSCOPE_MULTIARCH void powers(const double* x, Index rows, const double* mean, Powers& out)
{
    sum_powers(x, rows, mean, out);
}
RANKSCOPE_MULTIARCH void above(const float* x, Index rows, float threshold, double* out)
{
    count_above(x, rows, threshold, out);
}
RANKSCOPE_MULTIARCH void above(const double* x, Index rows, double threshold, double* out)
{
    count_above(x, rows, threshold, out);
}

using Counters = std::array<std::array<std::uint32_t, k_bins>, k_counters>;

/// Counts the first `columns` of each row of a tile; zeros land in the first bin.
void count_bins(const Tile<float>& tile, Index columns, Counters& counters)
{
    const auto& cells = float_bins().cells;
    for (Index row = 0; row < tile.rows; ++row) {
        const float* x = tile.values + row * k_strip;
        for (Index column = 0; column < columns; ++column) {
            const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[column]) & 0x7FFFFFFFU;
            const std::uint32_t bin = (cells[bits >> 16] + (bits & 0xFFFFU)) >> 16;
            ++counters[static_cast<std::size_t>(column) % k_counters][bin];
        }
    }
}

void count_bins(const Tile<double>& tile, Index columns, Counters& counters)
{
    for (Index row = 0; row < tile.rows; ++row) {
        for (Index column = 0; column < columns; ++column) {
            const double size = std::abs(tile.values[row * k_strip + column]);
            ++counters[0][size > 0.0 ? double_bin(size) : 0];
        }
    }
}

template <class T>
std::uint64_t count_zeros(const Tile<T>& tile, Index columns)
{
    std::uint64_t zeros = 0;
    for (Index row = 0; row < tile.rows; ++row) {
        std::uint32_t own = 0;
        for (Index column = 0; column < columns; ++column)
            own += tile.values[row * k_strip + column] == T{0} ? 1U : 0U;
        zeros += own;
    }
    return zeros;
}

/// Sums of some rows of x; what one task works out.
template <class T>
class Piece {
public:
    using Rows = Eigen::Ref<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

    Piece(const Rows& x, const Index* rows, Index count, const ColumnOptions& options)
        : x_(x), rows_(rows), count_(count), options_(options),
          sums_(x.cols(), static_cast<Index>(options.thresholds.size())), lanes_(new RowLanes<T>()),
          tile_(new Tile<T>())
    {
        sums_.rows = static_cast<std::uint64_t>(count);
        tile_->rows = count;
    }

    void run(float* row_maxima)
    {
        Counters counters{};
        for (Index first = 0; first < x_.cols(); first += k_strip) {
            const Index columns = std::min(k_strip, x_.cols() - first);
            load(first, columns);
            for (Index column = 0; column < columns; column += k_lanes)
                sum(first + column, tile_->values + column, std::min(k_lanes, columns - column));
            count_bins(*tile_, columns, counters);
            sums_.zeros += count_zeros(*tile_, columns);
        }
        for (const auto& own : counters)
            std::transform(own.begin(), own.end(), sums_.histogram.begin(), sums_.histogram.begin(),
                           std::plus<>{});
        sums_.histogram[0] -= sums_.zeros;
        finish_rows(row_maxima);
    }

    const ColumnStatistics& sums() const { return sums_; }
    bool finite() const { return finite_; }

private:
    /// The missing columns of the last strip are zeros, which change no figure of a row.
    void load(Index first, Index columns)
    {
        const Index stride = x_.outerStride();
        for (Index row = 0; row < count_; ++row) {
            const T* source = x_.data() + rows_[row] * stride + first;
            T* target = tile_->values + row * k_strip;
            __builtin_prefetch(source + k_strip); // the next strip of this row, which no stream would find
            if (columns == k_strip) {
                std::copy_n(source, k_strip, target);
                continue;
            }
            std::copy_n(source, columns, target);
            std::fill(target + columns, target + k_strip, T{0});
        }
    }

    void sum(Index column, const T* x, Index columns)
    {
        Extremes<T> edges;
        extremes(x, count_, edges, *lanes_);
        double mean[k_lanes];
        const auto n = static_cast<double>(count_);
        for (Index lane = 0; lane < k_lanes; ++lane) {
            mean[lane] = static_cast<double>(edges.sum[lane]) / n;
            if (!std::isfinite(mean[lane])) // the sum of values near the largest float
                mean[lane] = 0.0;
        }
        Powers sums;
        powers(x, count_, mean, sums);
        for (Index lane = 0; lane < columns; ++lane) {
            // The rounding of the mean, which tells in the moments of a channel far from zero.
            const Index j = column + lane;
            const double d = sums.left_over[lane] / n;
            sums_.mean[j] = mean[lane] + d;
            sums_.m2[j] = std::max(0.0, sums.m2[lane] - n * d * d);
            sums_.m3[j] = sums.m3[lane] - 3.0 * d * sums.m2[lane] + 2.0 * n * d * d * d;
            sums_.m4[j] = std::max(0.0, sums.m4[lane] - 4.0 * d * sums.m3[lane] + 6.0 * d * d * sums.m2[lane]
                                            - 3.0 * n * d * d * d * d);
            sums_.sum_abs[j] = sums.sum_abs[lane];
            sums_.minimum[j] = static_cast<double>(edges.low[lane]);
            sums_.maximum[j] = static_cast<double>(edges.high[lane]);
        }
        for (std::size_t k = 0; k < options_.thresholds.size(); ++k) {
            double counts[k_lanes];
            above(x, count_, static_cast<T>(options_.thresholds[k]), counts);
            for (Index lane = 0; lane < columns; ++lane)
                sums_.above(static_cast<Index>(k), column + lane) = counts[lane];
        }
    }

    void finish_rows(float* row_maxima)
    {
        const auto columns = static_cast<double>(x_.cols());
        for (Index row = 0; row < count_; ++row) {
            const T* largest = lanes_->largest + row * k_lanes;
            const T* squares = lanes_->squares + row * k_lanes;
            T most = 0;
            double energy = 0.0;
            for (Index lane = 0; lane < k_lanes; ++lane) {
                most = std::max(most, largest[lane]);
                energy += static_cast<double>(squares[lane]);
            }
            const double rms = std::sqrt(energy / columns);
            const double crest = rms > 0.0 ? static_cast<double>(most) / rms : 0.0;
            sums_.crest_sum += crest;
            sums_.crest_max = std::max(sums_.crest_max, crest);
            // NaN and infinity make the squares so; squares alone may overflow.
            if (!std::isfinite(energy))
                finite_ = finite_ && x_.row(rows_[row]).allFinite();
            if (row_maxima)
                row_maxima[rows_[row]] = static_cast<float>(most);
        }
    }

    const Rows& x_;
    const Index* rows_;
    Index count_;
    const ColumnOptions& options_;
    ColumnStatistics sums_;
    std::unique_ptr<RowLanes<T>> lanes_;
    std::unique_ptr<Tile<T>> tile_;
    bool finite_ = true;
};

template <class T>
void add_rows_of(const typename Piece<T>::Rows& x, std::span<const Index> apart, const ColumnOptions& options,
                 std::int64_t row, ColumnTotals& totals)
{
    assert(x.cols() == options.columns);
    std::vector<Index> order; // the rows apart, then the others
    order.reserve(static_cast<std::size_t>(x.rows()));
    order.assign(apart.begin(), apart.end());
    for (Index i = 0, next = 0; i < x.rows(); ++i) {
        if (next < static_cast<Index>(apart.size()) && apart[static_cast<std::size_t>(next)] == i)
            ++next;
        else
            order.push_back(i);
    }
    const auto named = static_cast<Index>(apart.size());
    const auto pieces_of = [](Index rows) { return (rows + k_piece_rows - 1) / k_piece_rows; };
    const Index first_pieces = pieces_of(named);
    const Index pieces = first_pieces + pieces_of(x.rows() - named);
    float* row_maxima = nullptr;
    if (options.keep_row_maxima) {
        const std::size_t before = totals.row_maxima.size();
        totals.row_maxima.resize(before + static_cast<std::size_t>(x.rows()));
        row_maxima = totals.row_maxima.data() + before;
    }
    std::vector<ColumnStatistics> sums(static_cast<std::size_t>(pieces));
    std::vector<char> finite(sums.size(), 1);
    parallel_for(0, pieces, [&](std::int64_t number) {
        const bool is_apart = number < first_pieces;
        const Index begin = is_apart ? number * k_piece_rows : named + (number - first_pieces) * k_piece_rows;
        const Index end = std::min(begin + k_piece_rows, is_apart ? named : x.rows());
        Piece<T> piece(x, order.data() + begin, end - begin, options);
        piece.run(row_maxima);
        sums[static_cast<std::size_t>(number)] = piece.sums();
        finite[static_cast<std::size_t>(number)] = piece.finite() ? 1 : 0;
    });
    for (Index number = 0; number < pieces; ++number)
        (number < first_pieces ? totals.apart : totals.others).merge(sums[static_cast<std::size_t>(number)]);
    if (totals.first_not_finite >= 0 || std::find(finite.begin(), finite.end(), 0) == finite.end())
        return;
    Index bad = 0;
    while (bad + 1 < x.rows() && x.row(bad).allFinite())
        ++bad;
    totals.first_not_finite = row + bad;
}

} // namespace

ColumnStatistics::ColumnStatistics(Index columns, Index thresholds)
    : mean(VectorD::Zero(columns)), m2(mean), m3(mean), m4(mean), minimum(mean), maximum(mean), sum_abs(mean),
      above(MatrixD::Zero(thresholds, columns))
{}

void ColumnStatistics::merge(const ColumnStatistics& other)
{
    if (other.rows == 0)
        return;
    if (rows == 0) {
        *this = other;
        return;
    }
    assert(columns() == other.columns() && above.rows() == other.above.rows());
    const auto a = static_cast<double>(rows);
    const auto b = static_cast<double>(other.rows);
    const double n = a + b;
    const Eigen::ArrayXd delta = other.mean.array() - mean.array();
    const Eigen::ArrayXd step = delta / n;
    // From the highest moment down: each formula uses the lower ones of both parts as they were.
    m4.array() += other.m4.array() + delta * step.cube() * (a * b * (a * a - a * b + b * b))
                  + 6.0 * step.square() * (a * a * other.m2.array() + b * b * m2.array())
                  + 4.0 * step * (a * other.m3.array() - b * m3.array());
    m3.array() += other.m3.array() + delta * step.square() * (a * b * (a - b))
                  + 3.0 * step * (a * other.m2.array() - b * m2.array());
    m2.array() += other.m2.array() + delta * step * (a * b);
    mean.array() += step * b;
    minimum = minimum.cwiseMin(other.minimum);
    maximum = maximum.cwiseMax(other.maximum);
    sum_abs += other.sum_abs;
    above += other.above;
    std::transform(histogram.begin(), histogram.end(), other.histogram.begin(), histogram.begin(),
                   std::plus<>{});
    zeros += other.zeros;
    crest_sum += other.crest_sum;
    crest_max = std::max(crest_max, other.crest_max);
    rows += other.rows;
}

double ColumnStatistics::histogram_edge(int bin)
{
    return std::exp2(static_cast<double>(bin) / k_bins_per_octave + k_first_exponent);
}

void add_rows(const Eigen::Ref<const Matrix>& x, std::span<const Index> apart, const ColumnOptions& options,
              std::int64_t row, ColumnTotals& totals)
{
    add_rows_of<float>(x, apart, options, row, totals);
}

void add_rows(const Eigen::Ref<const MatrixD>& x, std::span<const Index> apart, const ColumnOptions& options,
              std::int64_t row, ColumnTotals& totals)
{
    add_rows_of<double>(x, apart, options, row, totals);
}

} // namespace rankscope
