// SPDX-License-Identifier: GPL-3.0-or-later
//
// Central moments are summed around each piece's own mean and merged by Pébay's formulas: sums of raw fourth
// powers cancel catastrophically as soon as a channel's mean is large against its spread, which is what
// outlier channels are.
#include "core/calibration/activation_statistics.h"

#include "core/base/thread_pool.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <functional>
#include <numeric>

namespace rankscope {
namespace {

constexpr Index k_tile_channels = 32;
constexpr int k_bins_per_octave = 16;
constexpr int k_first_exponent = -40;

using Histogram = std::array<std::uint64_t, ActivationStatistics::k_histogram_bins>;

/// Finds an octave's bin by the top bits of the significand: so fine a cell holds one edge at most.
struct OctaveTable {
    static constexpr int k_cell_bits = 8;

    std::array<std::uint64_t, k_bins_per_octave + 1>
        edges{}; ///< lower edges as 52-bit significands; last: none
    std::array<std::uint8_t, 1 << k_cell_bits> first_bin{}; ///< of each cell's beginning

    OctaveTable()
    {
        for (std::size_t bin = 0; bin < k_bins_per_octave; ++bin) {
            const double edge = std::exp2(static_cast<double>(bin) / k_bins_per_octave);
            edges[bin] = std::bit_cast<std::uint64_t>(edge) & k_significand;
        }
        edges[k_bins_per_octave] = ~std::uint64_t{0};
        for (std::size_t cell = 0; cell < first_bin.size(); ++cell) {
            const std::uint64_t begin = static_cast<std::uint64_t>(cell) << (52 - k_cell_bits);
            const auto above = std::upper_bound(edges.begin(), edges.end(), begin);
            first_bin[cell] = static_cast<std::uint8_t>(above - edges.begin() - 1);
        }
    }

    static constexpr std::uint64_t k_significand = (std::uint64_t{1} << 52) - 1;
};

/// Bin of a positive number; the outermost bins take what lies beyond.
std::size_t histogram_bin(double magnitude)
{
    static const OctaveTable table;
    const auto bits = std::bit_cast<std::uint64_t>(magnitude);
    const std::uint64_t significand = bits & OctaveTable::k_significand;
    std::size_t within = table.first_bin[significand >> (52 - OctaveTable::k_cell_bits)];
    within += significand >= table.edges[within + 1] ? 1 : 0;
    const int exponent =
        static_cast<int>(bits >> 52) - 1023; // subnormal and infinite ones end in the outermost bins
    const int bin = (exponent - k_first_exponent) * k_bins_per_octave + static_cast<int>(within);
    return static_cast<std::size_t>(std::clamp(bin, 0, ActivationStatistics::k_histogram_bins - 1));
}

/// Sums of one tile of channels over a piece of tokens.
struct TileSums {
    using Row = Eigen::Array<double, 1, Eigen::Dynamic>;
    Row mean, m2, m3, m4, minimum, maximum, sum_abs, above;
    Histogram histogram{};
    std::uint64_t zeros = 0;
};

template <class Block>
TileSums sum_tile(const Block& x)
{
    const Index channels = x.cols();
    TileSums sums;
    sums.mean = sums.m2 = sums.m3 = sums.m4 = sums.sum_abs = sums.above = TileSums::Row::Zero(channels);
    sums.minimum = sums.maximum = x.row(0).template cast<double>().array();
    TileSums::Row row(channels);
    for (Index token = 0; token < x.rows(); ++token) {
        row = x.row(token).template cast<double>().array();
        sums.mean += row;
        sums.minimum = sums.minimum.min(row);
        sums.maximum = sums.maximum.max(row);
        row = row.abs();
        sums.sum_abs += row;
        sums.above += (row >= ActivationStatistics::k_outlier_threshold).template cast<double>();
        for (Index channel = 0; channel < channels; ++channel) {
            if (row[channel] > 0.0)
                ++sums.histogram[histogram_bin(row[channel])];
            else
                ++sums.zeros;
        }
    }
    sums.mean /= static_cast<double>(x.rows());
    TileSums::Row square(channels);
    TileSums::Row left_over = TileSums::Row::Zero(channels);
    for (Index token = 0; token < x.rows(); ++token) {
        row = x.row(token).template cast<double>().array() - sums.mean;
        square = row.square();
        left_over += row;
        sums.m2 += square;
        sums.m3 += square * row;
        sums.m4 += square.square();
    }
    // The rounding of the mean, which tells in the odd moment of a channel far from zero.
    const auto n = static_cast<double>(x.rows());
    left_over /= n;
    sums.m4 -= 4.0 * left_over * sums.m3;
    sums.m3 -= 3.0 * left_over * sums.m2;
    sums.m2 -= n * left_over.square();
    sums.mean += left_over;
    return sums;
}

double median(VectorD values)
{
    if (values.size() == 0)
        return 0.0;
    std::sort(values.begin(), values.end());
    const Index middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

} // namespace

ActivationStatistics::ActivationStatistics(Index channels)
    : mean_(VectorD::Zero(channels)), m2_(mean_), m3_(mean_), m4_(mean_), minimum_(mean_), maximum_(mean_),
      sum_abs_(mean_), above_threshold_(mean_)
{}

template <class Scalar>
void ActivationStatistics::add_rows(
    const Eigen::Ref<const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>& x)
{
    if (x.rows() == 0)
        return;
    if (channels() == 0 && tokens_ == 0)
        *this = ActivationStatistics(x.cols());
    assert(x.cols() == channels());
    ActivationStatistics part(x.cols());
    part.tokens_ = static_cast<std::uint64_t>(x.rows());
    const Index tiles = (x.cols() + k_tile_channels - 1) / k_tile_channels;
    std::vector<TileSums> sums(static_cast<std::size_t>(tiles));
    parallel_for(0, tiles, [&](std::int64_t tile) {
        const Index first = tile * k_tile_channels;
        const Index count = std::min(k_tile_channels, x.cols() - first);
        TileSums& own = sums[static_cast<std::size_t>(tile)];
        own = sum_tile(x.middleCols(first, count));
        const auto put = [&](VectorD& target, const TileSums::Row& source) {
            target.segment(first, count) = source.matrix().transpose();
        };
        put(part.mean_, own.mean);
        put(part.m2_, own.m2);
        put(part.m3_, own.m3);
        put(part.m4_, own.m4);
        put(part.minimum_, own.minimum);
        put(part.maximum_, own.maximum);
        put(part.sum_abs_, own.sum_abs);
        put(part.above_threshold_, own.above);
    });
    for (const TileSums& own : sums) {
        part.zeros_ += own.zeros;
        std::transform(part.histogram_.begin(), part.histogram_.end(), own.histogram.begin(),
                       part.histogram_.begin(), std::plus<>{});
    }
    merge(part);
}

void ActivationStatistics::add(const Eigen::Ref<const Matrix>& x) { add_rows<float>(x); }
void ActivationStatistics::add(const Eigen::Ref<const MatrixD>& x) { add_rows<double>(x); }

void ActivationStatistics::merge(const ActivationStatistics& other)
{
    if (other.tokens_ == 0)
        return;
    if (tokens_ == 0) {
        assert(channels() == 0 || channels() == other.channels());
        *this = other;
        return;
    }
    assert(channels() == other.channels());
    const auto a = static_cast<double>(tokens_);
    const auto b = static_cast<double>(other.tokens_);
    const double n = a + b;
    const Eigen::ArrayXd delta = other.mean_.array() - mean_.array();
    const Eigen::ArrayXd step = delta / n;
    // From the highest moment down: each formula uses the lower ones of both parts as they were.
    m4_.array() += other.m4_.array() + delta * step.cube() * (a * b * (a * a - a * b + b * b))
                   + 6.0 * step.square() * (a * a * other.m2_.array() + b * b * m2_.array())
                   + 4.0 * step * (a * other.m3_.array() - b * m3_.array());
    m3_.array() += other.m3_.array() + delta * step.square() * (a * b * (a - b))
                   + 3.0 * step * (a * other.m2_.array() - b * m2_.array());
    m2_.array() += other.m2_.array() + delta * step * (a * b);
    mean_.array() += step * b;
    minimum_ = minimum_.cwiseMin(other.minimum_);
    maximum_ = maximum_.cwiseMax(other.maximum_);
    sum_abs_ += other.sum_abs_;
    above_threshold_ += other.above_threshold_;
    std::transform(histogram_.begin(), histogram_.end(), other.histogram_.begin(), histogram_.begin(),
                   std::plus<>{});
    zeros_ += other.zeros_;
    tokens_ += other.tokens_;
}

VectorD ActivationStatistics::max_abs() const { return maximum_.cwiseMax(-minimum_); }

VectorD ActivationStatistics::mean_abs() const
{
    return tokens_ == 0 ? sum_abs_ : VectorD(sum_abs_ / static_cast<double>(tokens_));
}

VectorD ActivationStatistics::rms() const
{
    if (tokens_ == 0)
        return VectorD::Zero(channels());
    return (m2_.array() / static_cast<double>(tokens_) + mean_.array().square()).sqrt().matrix();
}

VectorD ActivationStatistics::channel_kurtosis() const
{
    const auto n = static_cast<double>(tokens_);
    return VectorD::NullaryExpr(channels(), [&](Index j) {
        const bool varies = m2_[j] > 0.0 && minimum_[j] < maximum_[j];
        return varies ? m4_[j] * n / (m2_[j] * m2_[j]) : 0.0;
    });
}

double ActivationStatistics::tensor_kurtosis() const
{
    if (tokens_ == 0 || channels() == 0)
        return 0.0;
    const auto n = static_cast<double>(tokens_);
    const double entries = n * static_cast<double>(channels());
    const Eigen::ArrayXd d = mean_.array() - mean_.mean();
    const double m2 = (m2_.array() + n * d.square()).sum() / entries;
    const double m4 =
        (m4_.array() + 4.0 * d * m3_.array() + 6.0 * d.square() * m2_.array() + n * d.square().square()).sum()
        / entries;
    return m2 > 0.0 ? m4 / (m2 * m2) : 0.0;
}

double ActivationStatistics::tensor_rms() const
{
    return channels() == 0 ? 0.0 : std::sqrt(rms().squaredNorm() / static_cast<double>(channels()));
}

double ActivationStatistics::crest() const
{
    const double level = tensor_rms();
    return level > 0.0 ? max_abs().maxCoeff() / level : 0.0;
}

Index ActivationStatistics::outlier_channels() const
{
    return (max_abs().array() >= k_outlier_threshold).count();
}

Index ActivationStatistics::outlier_channels_in(double share) const
{
    return tokens_ == 0 ? 0 : (above_threshold_.array() >= share * static_cast<double>(tokens_)).count();
}

Index ActivationStatistics::relative_outliers(double factor) const
{
    const VectorD levels = rms();
    return (levels.array() > factor * median(levels)).count();
}

double ActivationStatistics::top_energy_share(double share) const
{
    VectorD energy = rms().cwiseAbs2();
    const double trace = energy.sum();
    if (!(trace > 0.0))
        return 0.0;
    const auto wanted = static_cast<Index>(std::nearbyint(share * static_cast<double>(channels())));
    std::sort(energy.begin(), energy.end(), std::greater<>{});
    return energy.head(std::clamp<Index>(wanted, 1, channels())).sum() / trace;
}

double ActivationStatistics::quantile_abs(double p) const
{
    const std::uint64_t entries = std::accumulate(histogram_.begin(), histogram_.end(), zeros_);
    const double wanted = p * static_cast<double>(entries);
    std::uint64_t seen = zeros_;
    if (static_cast<double>(seen) >= wanted)
        return 0.0;
    for (int bin = 0; bin < k_histogram_bins; ++bin) {
        seen += histogram_[static_cast<std::size_t>(bin)];
        if (static_cast<double>(seen) >= wanted)
            return std::sqrt(histogram_edge(bin) * histogram_edge(bin + 1));
    }
    return histogram_edge(k_histogram_bins);
}

double ActivationStatistics::histogram_edge(int bin)
{
    return std::exp2(static_cast<double>(bin) / k_bins_per_octave + k_first_exponent);
}

MatrixD ActivationStatistics::to_rows() const
{
    MatrixD rows(8, channels());
    const VectorD* const parts[] = {&mean_,    &m2_,      &m3_,      &m4_,
                                    &minimum_, &maximum_, &sum_abs_, &above_threshold_};
    Index row = 0;
    for (const VectorD* part : parts)
        rows.row(row++) = part->transpose();
    return rows;
}

ActivationStatistics ActivationStatistics::from_rows(std::uint64_t tokens, const MatrixD& rows,
                                                     const std::vector<std::uint64_t>& histogram,
                                                     std::uint64_t zeros)
{
    assert(rows.rows() == 8 && histogram.size() == k_histogram_bins);
    ActivationStatistics result(rows.cols());
    VectorD* const parts[] = {&result.mean_,    &result.m2_,      &result.m3_,      &result.m4_,
                              &result.minimum_, &result.maximum_, &result.sum_abs_, &result.above_threshold_};
    Index row = 0;
    for (VectorD* part : parts)
        *part = rows.row(row++).transpose();
    std::copy_n(histogram.begin(), k_histogram_bins, result.histogram_.begin());
    result.tokens_ = tokens;
    result.zeros_ = zeros;
    return result;
}

} // namespace rankscope
