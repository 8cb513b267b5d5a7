// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/min_max_pyramid.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr int k_leaf = 16; ///< values under one cell of the lowest level

} // namespace

MinMaxPyramid::MinMaxPyramid(QVector<double> values) : values_(std::move(values))
{
    int cells = (size() + k_leaf - 1) / k_leaf;
    if (cells == 0)
        return;
    QVector<Extremes> level(cells);
    for (int cell = 0; cell < cells; ++cell) {
        Extremes found;
        for (int i = cell * k_leaf; i < std::min((cell + 1) * k_leaf, size()); ++i)
            found = merge(found, {i, i});
        level[cell] = found;
    }
    levels_.append(level);
    while (cells > 1) {
        const QVector<Extremes> below = levels_.constLast();
        cells = (cells + 1) / 2;
        QVector<Extremes> above(cells);
        for (int cell = 0; cell < cells; ++cell) {
            above[cell] = below[2 * cell];
            if (2 * cell + 1 < below.size())
                above[cell] = merge(above[cell], below[2 * cell + 1]);
        }
        levels_.append(above);
    }
}

MinMaxPyramid::Extremes MinMaxPyramid::merge(const Extremes& a, const Extremes& b) const
{
    if (b.empty() || !std::isfinite(values_[b.max_at]))
        return a;
    if (a.empty())
        return b;
    return {values_[b.min_at] < values_[a.min_at] ? b.min_at : a.min_at,
            values_[b.max_at] > values_[a.max_at] ? b.max_at : a.max_at};
}

MinMaxPyramid::Extremes MinMaxPyramid::over(int first, int last) const
{
    first = std::max(first, 0);
    last = std::min(last, size());
    Extremes found;
    while (first < last && first % k_leaf != 0) {
        found = merge(found, {first, first});
        ++first;
    }
    // Now on a cell's border: climb while cells fit, then come down for the rest.
    while (last - first >= k_leaf) {
        int level = 0;
        int cell = first / k_leaf;
        while (cell % 2 == 0 && level + 1 < levels_.size() && first + (k_leaf << (level + 1)) <= last) {
            ++level;
            cell /= 2;
        }
        found = merge(found, levels_[level][cell]);
        first += k_leaf << level;
    }
    for (; first < last; ++first)
        found = merge(found, {first, first});
    return found;
}

QVector<int> MinMaxPyramid::places(int first, int last, int bins) const
{
    first = std::max(first, 0);
    last = std::min(last, size());
    bins = std::max(bins, 1);
    QVector<int> result;
    if (last - first <= 2 * static_cast<qint64>(bins)) {
        for (int i = first; i < last; ++i)
            result.append(i);
        return result;
    }
    result.reserve(2 * bins);
    const qint64 span = last - first;
    for (int bin = 0; bin < bins; ++bin) {
        const auto from = first + static_cast<int>(span * bin / bins);
        const auto to = first + static_cast<int>(span * (bin + 1) / bins);
        const Extremes found = over(from, to);
        if (found.empty())
            continue;
        result.append(std::min(found.min_at, found.max_at));
        if (found.min_at != found.max_at)
            result.append(std::max(found.min_at, found.max_at));
    }
    return result;
}

} // namespace rankscope
