// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <cstdint>
#include <vector>

namespace rankscope {

/// A matrix at half, a quarter … of its size, for pictures: each cell of level k is the entry of largest
/// magnitude, with its sign, among the 2^k × 2^k that it covers, so that a single outlier never vanishes. NaN
/// and infinity make a cell NaN. Const and thread-safe once built.
class MagnitudePyramid {
public:
    MagnitudePyramid() = default;
    explicit MagnitudePyramid(Matrix values);

    bool empty() const { return levels_.empty(); }
    Index rows() const { return empty() ? 0 : levels_.front().rows(); }
    Index cols() const { return empty() ? 0 : levels_.front().cols(); }
    int levels() const { return static_cast<int>(levels_.size()); }
    /// Level 0 is the matrix itself; the last one has one cell.
    const Matrix& level(int k) const { return levels_[static_cast<std::size_t>(k)]; }
    float operator()(Index row, Index col) const { return levels_.front()(row, col); }

    double largest() const { return largest_; } ///< magnitude of a finite entry; 0 without one
    double rms() const { return rms_; }         ///< of the finite entries
    std::uint64_t not_finite() const { return not_finite_; }
    std::size_t bytes() const; ///< of all levels

private:
    void build();

    std::vector<Matrix> levels_;
    double largest_ = 0.0;
    double rms_ = 0.0;
    std::uint64_t not_finite_ = 0;
};

/// second − first, entry by entry; empty where their shapes differ.
MagnitudePyramid difference_of(const MagnitudePyramid& first, const MagnitudePyramid& second);

} // namespace rankscope
