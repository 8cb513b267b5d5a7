// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <array>
#include <cstdint>
#include <vector>

namespace rankscope {

/// One-pass, mergeable statistics of one linear input (methods-learned §6.1): central moments to the fourth
/// by Pébay's formulas, extremes, threshold counts per channel; a logarithmic histogram of |x| per tensor.
/// Accumulating tokens in any cut, or merging parts, gives the same figures to rounding.
class ActivationStatistics {
public:
    static constexpr double k_outlier_threshold = 6.0; ///< LLM.int8's
    static constexpr int k_histogram_bins = 1024;      ///< width 2^(1/16), from 2^−40

    explicit ActivationStatistics(Index channels = 0);

    /// x: tokens × channels, finite. The same figures for any number of threads.
    void add(const Eigen::Ref<const Matrix>& x);
    void add(const Eigen::Ref<const MatrixD>& x);
    /// A statistic without channels takes over the other one.
    void merge(const ActivationStatistics& other);

    std::uint64_t tokens() const { return tokens_; }
    Index channels() const { return mean_.size(); }
    const VectorD& mean() const { return mean_; }
    const VectorD& minimum() const { return minimum_; }
    const VectorD& maximum() const { return maximum_; }
    VectorD max_abs() const;
    VectorD mean_abs() const;
    VectorD rms() const;              ///< sqrt of diag H
    VectorD channel_kurtosis() const; ///< m4 / m2² per channel; Gaussian 3; 0 for constant channels
    double tensor_kurtosis() const;   ///< over all entries, from channel sums
    double tensor_rms() const;
    double crest() const; ///< max |x| / rms over the tensor
    /// Tokens in which |x_j| ≥ 6, per channel.
    const VectorD& threshold_counts() const { return above_threshold_; }
    Index outlier_channels() const;                ///< channels with max |x| ≥ 6
    Index outlier_channels_in(double share) const; ///< … in at least this share of the tokens
    Index relative_outliers(double factor) const;  ///< channels with rms > factor · median rms
    /// Σ of the k largest of diag H / trace, k = share·n rounded to even, at least 1.
    double top_energy_share(double share) const;
    double quantile_abs(double p) const; ///< from the histogram, within 2 %
    const std::array<std::uint64_t, k_histogram_bins>& histogram() const { return histogram_; }
    static double histogram_edge(int bin); ///< lower edge of a bin
    std::uint64_t zeros() const { return zeros_; }

    /// Flat state for storing: rows mean, M2, M3, M4, min, max, Σ|x|, counts; and the histogram as one row.
    MatrixD to_rows() const;
    static ActivationStatistics from_rows(std::uint64_t tokens, const MatrixD& rows,
                                          const std::vector<std::uint64_t>& histogram, std::uint64_t zeros);

private:
    template <class Scalar>
    void add_rows(
        const Eigen::Ref<const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>& x);

    std::uint64_t tokens_ = 0;
    VectorD mean_, m2_, m3_, m4_, minimum_, maximum_, sum_abs_, above_threshold_;
    std::array<std::uint64_t, k_histogram_bins> histogram_{};
    std::uint64_t zeros_ = 0;
};

} // namespace rankscope
