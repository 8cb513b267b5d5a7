// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/activation_statistics.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

namespace rankscope {

double median(VectorD values)
{
    if (values.size() == 0)
        return 0.0;
    std::sort(values.begin(), values.end());
    const Index middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

namespace {

/// The energies of diag H, falling.
VectorD falling_energies(const ActivationStatistics& statistics)
{
    VectorD energy = statistics.rms().cwiseAbs2();
    std::sort(energy.begin(), energy.end(), std::greater<>{});
    return energy;
}

} // namespace

ActivationStatistics::ActivationStatistics(Index channels, const std::vector<double>& further_thresholds)
    : thresholds_{k_outlier_threshold}
{
    thresholds_.insert(thresholds_.end(), further_thresholds.begin(), further_thresholds.end());
    sums_ = ColumnStatistics(channels, static_cast<Index>(thresholds_.size()));
}

ActivationStatistics::ActivationStatistics(ColumnStatistics sums, std::vector<double> thresholds)
    : thresholds_(std::move(thresholds)), sums_(std::move(sums))
{
    assert(sums_.above.rows() == static_cast<Index>(thresholds_.size()));
}

namespace {

template <class Rows>
void add_to(ColumnStatistics& sums, const std::vector<double>& thresholds, const Rows& x)
{
    if (x.rows() == 0)
        return;
    const auto count = static_cast<Index>(thresholds.size());
    ColumnTotals totals;
    totals.others = ColumnStatistics(x.cols(), count);
    add_rows(x, {}, {x.cols(), thresholds, false}, 0, totals);
    sums.merge(totals.others);
}

} // namespace

void ActivationStatistics::add(const Eigen::Ref<const Matrix>& x) { add_to(sums_, thresholds_, x); }
void ActivationStatistics::add(const Eigen::Ref<const MatrixD>& x) { add_to(sums_, thresholds_, x); }

void ActivationStatistics::merge(const ActivationStatistics& other)
{
    assert(thresholds_ == other.thresholds_);
    sums_.merge(other.sums_);
}

VectorD ActivationStatistics::max_abs() const { return sums_.maximum.cwiseMax(-sums_.minimum); }

VectorD ActivationStatistics::mean_abs() const
{
    return sums_.rows == 0 ? sums_.sum_abs : VectorD(sums_.sum_abs / static_cast<double>(sums_.rows));
}

VectorD ActivationStatistics::rms() const
{
    if (sums_.rows == 0)
        return VectorD::Zero(channels());
    return (sums_.m2.array() / static_cast<double>(sums_.rows) + sums_.mean.array().square()).sqrt().matrix();
}

VectorD ActivationStatistics::channel_kurtosis() const
{
    const auto n = static_cast<double>(sums_.rows);
    return VectorD::NullaryExpr(channels(), [&](Index j) {
        const bool varies = sums_.m2[j] > 0.0 && sums_.minimum[j] < sums_.maximum[j];
        return varies ? sums_.m4[j] * n / (sums_.m2[j] * sums_.m2[j]) : 0.0;
    });
}

double ActivationStatistics::tensor_kurtosis() const
{
    if (sums_.rows == 0 || channels() == 0)
        return 0.0;
    const auto n = static_cast<double>(sums_.rows);
    const double entries = n * static_cast<double>(channels());
    const Eigen::ArrayXd d = sums_.mean.array() - sums_.mean.mean();
    const double m2 = (sums_.m2.array() + n * d.square()).sum() / entries;
    const double m4 = (sums_.m4.array() + 4.0 * d * sums_.m3.array() + 6.0 * d.square() * sums_.m2.array()
                       + n * d.square().square())
                          .sum()
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

double ActivationStatistics::mean_token_crest() const
{
    return sums_.rows == 0 ? 0.0 : sums_.crest_sum / static_cast<double>(sums_.rows);
}

VectorD ActivationStatistics::threshold_counts(std::size_t threshold) const
{
    return sums_.above.row(static_cast<Index>(threshold)).transpose();
}

Index ActivationStatistics::outlier_channels(std::size_t threshold) const
{
    return (max_abs().array() >= thresholds_[threshold]).count();
}

Index ActivationStatistics::outlier_channels_in(double share, std::size_t threshold) const
{
    const double least = share * static_cast<double>(sums_.rows);
    return sums_.rows == 0 ? 0 : (threshold_counts(threshold).array() >= least).count();
}

Index ActivationStatistics::relative_outliers(double factor) const
{
    const VectorD levels = rms();
    return (levels.array() > factor * median(levels)).count();
}

double ActivationStatistics::top_energy_share(double share) const
{
    const VectorD energy = falling_energies(*this);
    const double trace = energy.sum();
    if (!(trace > 0.0))
        return 0.0;
    const auto wanted = static_cast<Index>(std::nearbyint(share * static_cast<double>(channels())));
    return energy.head(std::clamp<Index>(wanted, 1, channels())).sum() / trace;
}

VectorD ActivationStatistics::top_energy_curve(Index count) const
{
    VectorD curve = falling_energies(*this);
    const double trace = curve.sum();
    std::partial_sum(curve.begin(), curve.end(), curve.begin());
    curve.conservativeResize(std::min(count, curve.size()));
    return trace > 0.0 ? VectorD(curve / trace) : curve;
}

double ActivationStatistics::quantile_abs(double p) const
{
    const std::uint64_t entries =
        std::accumulate(sums_.histogram.begin(), sums_.histogram.end(), sums_.zeros);
    const double wanted = p * static_cast<double>(entries);
    std::uint64_t seen = sums_.zeros;
    if (static_cast<double>(seen) >= wanted)
        return 0.0;
    for (int bin = 0; bin < k_histogram_bins; ++bin) {
        seen += sums_.histogram[static_cast<std::size_t>(bin)];
        if (static_cast<double>(seen) >= wanted)
            return std::sqrt(histogram_edge(bin) * histogram_edge(bin + 1));
    }
    return histogram_edge(k_histogram_bins);
}

MatrixD ActivationStatistics::to_rows() const
{
    MatrixD rows(k_fixed_rows + sums_.above.rows(), channels());
    const VectorD* const parts[k_fixed_rows] = {&sums_.mean,    &sums_.m2,      &sums_.m3,     &sums_.m4,
                                                &sums_.minimum, &sums_.maximum, &sums_.sum_abs};
    for (Index row = 0; row < k_fixed_rows; ++row)
        rows.row(row) = parts[row]->transpose();
    rows.bottomRows(sums_.above.rows()) = sums_.above;
    return rows;
}

ColumnStatistics ActivationStatistics::sums_of_rows(const MatrixD& rows)
{
    assert(rows.rows() > k_fixed_rows);
    ColumnStatistics sums(rows.cols(), rows.rows() - k_fixed_rows);
    VectorD* const parts[k_fixed_rows] = {&sums.mean,    &sums.m2,      &sums.m3,     &sums.m4,
                                          &sums.minimum, &sums.maximum, &sums.sum_abs};
    for (Index row = 0; row < k_fixed_rows; ++row)
        *parts[row] = rows.row(row).transpose();
    sums.above = rows.bottomRows(rows.rows() - k_fixed_rows);
    return sums;
}

} // namespace rankscope
