// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/column_statistics.h"
#include "core/tensor/matrix.h"

#include <array>
#include <cstdint>
#include <vector>

namespace rankscope {

/// The middle value, or the mean of the two; 0 of none.
double median(VectorD values);

/// One-pass, mergeable statistics of one linear input (methods-learned §6.1) and the figures that follow from
/// them (§6.2). Accumulating tokens in any cut, or merging parts, gives the same figures to rounding.
class ActivationStatistics {
public:
    static constexpr double k_outlier_threshold = 6.0; ///< LLM.int8's; always the first one
    static constexpr int k_histogram_bins = ColumnStatistics::k_histogram_bins;
    static constexpr Index k_fixed_rows = 7; ///< of to_rows(), before the counts of the thresholds

    /// `further_thresholds`: counted besides 6, in this order.
    explicit ActivationStatistics(Index channels = 0, const std::vector<double>& further_thresholds = {});
    /// `sums.above` has a row for each of `thresholds`, the first of which is 6.
    ActivationStatistics(ColumnStatistics sums, std::vector<double> thresholds);

    /// x: tokens × channels, finite. The same figures for any number of threads.
    void add(const Eigen::Ref<const Matrix>& x);
    void add(const Eigen::Ref<const MatrixD>& x);
    /// A statistic without channels takes over the other one. Both have the same thresholds.
    void merge(const ActivationStatistics& other);

    const ColumnStatistics& sums() const { return sums_; }
    const std::vector<double>& thresholds() const { return thresholds_; }
    std::uint64_t tokens() const { return sums_.rows; }
    Index channels() const { return sums_.columns(); }
    const VectorD& mean() const { return sums_.mean; }
    const VectorD& minimum() const { return sums_.minimum; }
    const VectorD& maximum() const { return sums_.maximum; }
    VectorD max_abs() const;
    VectorD mean_abs() const;
    VectorD rms() const;              ///< sqrt of diag H
    VectorD channel_kurtosis() const; ///< m4 / m2² per channel; Gaussian 3; 0 for constant channels
    double tensor_kurtosis() const;   ///< over all entries, from channel sums
    double tensor_rms() const;
    double crest() const;            ///< max |x| / rms over the tensor
    double mean_token_crest() const; ///< mean over tokens of max |x| / rms in the token
    double max_token_crest() const { return sums_.crest_max; }
    /// Tokens in which |x_j| ≥ thresholds()[threshold], per channel.
    VectorD threshold_counts(std::size_t threshold = 0) const;
    Index outlier_channels(std::size_t threshold = 0) const; ///< channels with max |x| ≥ the threshold
    /// … in at least this share of the tokens.
    Index outlier_channels_in(double share, std::size_t threshold = 0) const;
    Index relative_outliers(double factor) const; ///< channels with rms > factor · median rms
    /// Σ of the k largest of diag H / trace, k = share·n rounded to even, at least 1.
    double top_energy_share(double share) const;
    /// The same for k = 1 … count (at most the channels).
    VectorD top_energy_curve(Index count) const;
    double quantile_abs(double p) const; ///< from the histogram, within 2 %
    const std::array<std::uint64_t, k_histogram_bins>& histogram() const { return sums_.histogram; }
    static double histogram_edge(int bin) { return ColumnStatistics::histogram_edge(bin); }
    std::uint64_t zeros() const { return sums_.zeros; }

    /// Flat state for storing, beside tokens, histogram, zeros and crests: rows mean, M2, M3, M4, min, max,
    /// Σ|x|, then the counts of each threshold.
    MatrixD to_rows() const;
    /// The sums that to_rows() stores; `rows` has at least k_fixed_rows + 1 rows.
    static ColumnStatistics sums_of_rows(const MatrixD& rows);

private:
    std::vector<double> thresholds_;
    ColumnStatistics sums_;
};

} // namespace rankscope
