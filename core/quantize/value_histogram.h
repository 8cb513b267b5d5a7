// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/quantize/quantized_matrix.h"

#include <cstdint>
#include <vector>

namespace rankscope {

/// Which groups of a matrix are meant: those of a row, of a place within the rows, both, or all (−1).
struct GroupChoice {
    Index row = -1;
    Index group = -1;
    bool operator==(const GroupChoice&) const = default;
};

/// Counts of values in equal bins over [low, high], both ends included.
struct ValueHistogram {
    double low = 0.0;
    double high = 0.0;
    std::vector<std::uint64_t> counts;
    std::uint64_t values = 0;     ///< finite ones, counted in a bin or not
    std::uint64_t not_finite = 0; ///< NaN and infinity: in no bin and in no figure below
    double minimum = 0.0;
    double maximum = 0.0;
    double rms = 0.0;

    double bin_width() const
    {
        return counts.empty() ? 0.0 : (high - low) / static_cast<double>(counts.size());
    }
};

/// How the values of some groups meet their grids.
struct GridFit {
    Index grids = 0;            ///< groups that were chosen; 0: no scalar grid (E8P, no codes)
    std::vector<double> levels; ///< rising; of the one group, or of the one whose step is the median
    double scale = 0.0;         ///< of that group
    bool has_dead_zone = false; ///< zero is one of its levels
    double dead_low = 0.0;      ///< values from here to dead_high become zero
    double dead_high = 0.0;
    double clip_low = 0.0; ///< half a step beyond its outermost levels: what lies further out is clipped
    double clip_high = 0.0;
    double zeroed = 0.0;  ///< share of the values that nearest rounding makes zero, each in its own group
    double clipped = 0.0; ///< share that lies beyond its own group's clip_low … clip_high
};

/// How a value is placed on the axis of a histogram.
enum class ValueUnit : std::uint8_t {
    Plain, ///< as it is
    Steps, ///< in units of its group's scale, zero point added: the codes of the grid, alike for all groups
};

/// What a histogram is made of: `values` has the shape of `grid`, which may be without codes or scales (then
/// Plain only, and one group a row).
struct HistogramInput {
    const Matrix& values;
    const QuantizedMatrix& grid;
    GroupChoice choice;
    ValueUnit unit = ValueUnit::Plain;
};

/// Smallest and largest finite value, in that unit; both 0 where there is none.
struct ValueRange {
    double low = 0.0;
    double high = 0.0;
};
ValueRange value_range(const HistogramInput& input);
/// `bins` > 0 equal bins over `range`; one bin of some width around a single value.
ValueHistogram value_histogram(const HistogramInput& input, const ValueRange& range, int bins);
/// Levels in the histogram's unit; Steps leaves out the dead zone where zero points differ.
GridFit grid_fit(const HistogramInput& input);

} // namespace rankscope
