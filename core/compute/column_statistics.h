// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/buffer.h"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace rankscope {

/// Sums over rows for each column, from which every statistic of a linear's input follows (methods-learned
/// §6.1). Mergeable: any cut of the rows gives the same figures to rounding (Pébay 2008, SAND2008-6212).
struct ColumnStatistics {
    static constexpr int k_histogram_bins = 1024; ///< of |x|: width 2^(1/16), from 2^−40

    ColumnStatistics() = default;
    ColumnStatistics(Index columns, Index thresholds);

    std::uint64_t rows = 0;
    VectorD mean;
    VectorD m2, m3, m4; ///< sums of powers of x − mean
    VectorD minimum, maximum;
    VectorD sum_abs;
    MatrixD above; ///< thresholds × columns: rows with |x| ≥ threshold
    std::array<std::uint64_t, k_histogram_bins> histogram{};
    std::uint64_t zeros = 0;
    double crest_sum = 0.0; ///< Σ over rows of max|x| / rms; rows of zeros count as 0
    double crest_max = 0.0;

    Index columns() const { return mean.size(); }
    /// Sums without rows take over the other ones. Both have the same columns and thresholds.
    void merge(const ColumnStatistics& other);
    static double histogram_edge(int bin); ///< lower edge of a bin
};

/// All that an accumulator holds.
struct ColumnTotals {
    ColumnStatistics apart;        ///< of the rows that were named
    ColumnStatistics others;       ///< of the rest
    std::vector<float> row_maxima; ///< max|x| of each row, in the order they came; empty unless asked for
    std::int64_t first_not_finite =
        -1; ///< number, among all rows, of the first with NaN or infinity; −1: none
};

struct ColumnOptions {
    Index columns = 0;
    std::vector<double> thresholds;
    bool keep_row_maxima = false;
};

/// Gathers ColumnStatistics over many buffers where these live, so that only the sums leave the device. Made
/// by Backend::column_accumulator; one thread at a time. The figures do not depend on the number of threads.
class ColumnAccumulator {
public:
    virtual ~ColumnAccumulator() = default;
    /// Takes in the rows of x (rows × columns); those in `apart` (rising) are summed apart from the others.
    virtual void add(const Buffer& x, std::span<const Index> apart) = 0;
    /// ColumnTotals::first_not_finite; may wait for the device. From then on the sums are worthless.
    virtual std::int64_t first_not_finite() = 0;
    virtual ColumnTotals totals() = 0;
};

/// The reference on the host: adds the rows of x to `totals`, whose sums have their columns. `row` counts the
/// rows that came before.
void add_rows(const Eigen::Ref<const Matrix>& x, std::span<const Index> apart, const ColumnOptions& options,
              std::int64_t row, ColumnTotals& totals);
void add_rows(const Eigen::Ref<const MatrixD>& x, std::span<const Index> apart, const ColumnOptions& options,
              std::int64_t row, ColumnTotals& totals);

} // namespace rankscope
