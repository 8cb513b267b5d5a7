// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <span>
#include <string>
#include <variant>
#include <vector>

namespace rankscope {

struct QuantizedMatrix;

/// What a series or a map shows; every face gives it the color and line that it has everywhere.
enum class SeriesRole : std::uint8_t { Weight, Quantized, LowRank, Residual, Outlier };

/// A matrix as a colored map, zero at the neutral color. Pooled to at most k_map_side cells a side: each cell
/// holds the entry of largest magnitude below it, so that a single outlier stays visible.
struct MatrixPicture {
    std::string title;
    std::string x_label, y_label;
    Matrix cells;
    Index rows = 0, cols = 0;  ///< of the matrix itself
    double limit = 1.0;        ///< value at the end of the color scale; beyond it is clipped
    double largest = 0.0;      ///< largest |entry| of the matrix
    std::vector<Index> marked; ///< columns that a ▲ points at
};

/// One value per input channel.
struct ChannelPicture {
    struct Series {
        std::string name;
        SeriesRole role = SeriesRole::Weight;
        VectorD values; ///< all series of the same size
    };
    std::string title;
    std::string y_label;
    std::vector<Series> series; ///< drawn over each other, the first one behind
    std::vector<Index> marked;  ///< outlier channels: ▲
    bool logarithmic = false;
    bool sorted = false; ///< values are falling, the axis counts channels instead of naming them
};

/// Counts of values in equal bins; all series share them.
struct HistogramPicture {
    struct Series {
        std::string name;
        SeriesRole role = SeriesRole::Weight;
        VectorD counts;
        double lowest = 0.0, highest = 0.0; ///< of the values themselves
    };
    std::string title;
    std::string x_label;
    double low = 0.0, high = 1.0; ///< left end of the first bin, right end of the last
    std::vector<Series> series;
    std::vector<double> levels; ///< of the grid, drawn as ticks; may be empty
};

/// Points joined by lines.
struct CurvePicture {
    struct Series {
        std::string name;
        SeriesRole role = SeriesRole::Weight;
        VectorD x, y;
    };
    std::string title;
    std::string x_label, y_label;
    std::vector<Series> series;
    double cursor = -1.0; ///< x of a vertical line; negative: none
    bool x_logarithmic = false;
};

/// Named figures as horizontal bars from zero.
struct BarsPicture {
    struct Bar {
        std::string name;
        SeriesRole role = SeriesRole::Weight;
        double value = 0.0;
    };
    std::string title;
    std::string x_label;
    std::vector<Bar> bars;
    bool percent = false;
};

/// Weights on the ruler of their grid, in steps: where they lie and where two ways of rounding take them.
struct RoundingPicture {
    struct Weight {
        std::string name;      ///< "row 3, channel 15"
        double position = 0.0; ///< w / step of nearest rounding
        double divided = 0.0;  ///< w / S, what the learned way rounds
        int nearest = 0;
        int learned = 0;
    };
    std::string title;
    std::string x_label;
    std::vector<Weight> weights;
};

using LessonPicture =
    std::variant<MatrixPicture, ChannelPicture, HistogramPicture, CurvePicture, BarsPicture, RoundingPicture>;

inline constexpr Index k_map_side = 384;

/// One sentence that says what is drawn, for who does not see it.
std::string describe(const LessonPicture& picture);

/// The entry of largest magnitude (with its sign) of each cell, at most `side` cells a side.
Matrix pooled(const Eigen::Ref<const Matrix>& matrix, Index side);

/// `limit` 0: the largest |entry|.
MatrixPicture matrix_picture(std::string title, const Matrix& matrix, double limit,
                             std::vector<Index> marked = {});

/// |entry| that a share of the entries does not reach; 0 of an empty matrix. 0 ≤ share ≤ 1.
double magnitude_quantile(const Matrix& matrix, double share);

struct ValueSeries {
    std::string name;
    SeriesRole role = SeriesRole::Weight;
    const Matrix* values = nullptr;
    const QuantizedMatrix* grid = nullptr; ///< count in its steps, zero points added; null: as they are
};
/// From the smallest value, or 0, to the largest, or 0. Values that are not finite are not counted.
HistogramPicture histogram_picture(std::string title, std::string x_label,
                                   std::span<const ValueSeries> inputs, Index bins = 81);

/// ‖column j‖² · weights[j], divided by the sum of `whole`; zeros where that is 0.
VectorD column_shares(const Matrix& matrix, const VectorD& weights, double whole);

/// Sum of the marked entries.
double sum_over(const VectorD& values, const std::vector<Index>& marked);

/// The first channels whose values, taken from the largest down, reach `share` of the sum.
Index channels_for_share(const VectorD& values, double share);

} // namespace rankscope
