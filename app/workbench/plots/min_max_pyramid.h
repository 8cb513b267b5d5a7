// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QVector>

namespace rankscope {

/// Smallest and largest value of any range of a series in O(log n), with their places, so that a plot draws
/// at most two points a pixel and loses no extreme. Values that are not finite are skipped.
class MinMaxPyramid {
public:
    struct Extremes {
        int min_at = -1; ///< −1: no finite value in the range
        int max_at = -1;
        bool empty() const { return max_at < 0; }
    };

    MinMaxPyramid() = default;
    explicit MinMaxPyramid(QVector<double> values);

    int size() const { return static_cast<int>(values_.size()); }
    const QVector<double>& values() const { return values_; }
    double operator[](int place) const { return values_[place]; }

    /// Extremes of [first, last), clipped to the series.
    Extremes over(int first, int last) const;
    /// The places to draw for [first, last) in `bins` equal bins, rising: all of them where they fit (2 a
    /// bin), else the extremes of each bin.
    QVector<int> places(int first, int last, int bins) const;

private:
    Extremes merge(const Extremes& a, const Extremes& b) const;

    QVector<double> values_;
    QVector<QVector<Extremes>> levels_; ///< levels_[k][i] covers [i·2^(k+k_leaf), …)
};

} // namespace rankscope
