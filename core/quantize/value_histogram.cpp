// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/value_histogram.h"

#include "core/compute/grid_levels.h"
#include "core/tensor/row_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

/// The groups that a choice names: rows [first_row, last_row), places [first_group, last_group).
struct Chosen {
    Index first_row, last_row, first_group, last_group;
    Index width; ///< of a group
    Index cols;

    Index rows() const { return last_row - first_row; }
    Index count() const { return rows() * (last_group - first_group); }
    Index first_column(Index group) const { return group * width; }
    Index last_column(Index group) const { return std::min(cols, (group + 1) * width); }
};

bool has_scalar_grid(const HistogramInput& input)
{
    const QuantizedMatrix& grid = input.grid;
    return grid.codebook == Codebook::Uniform && grid.scales.size() > 0
           && grid.scales.rows() == input.values.rows()
           && grid.scales.cols() == grid.grid.groups(input.values.cols());
}

Chosen chosen_groups(const HistogramInput& input)
{
    const Index rows = input.values.rows();
    const Index cols = input.values.cols();
    const bool gridded = has_scalar_grid(input);
    const Index width = gridded ? input.grid.grid.group_width(cols) : cols;
    const Index groups = gridded ? input.grid.grid.groups(cols) : std::min<Index>(cols, 1);
    const auto bounds = [](Index choice, Index count) {
        return choice < 0 ? std::pair<Index, Index>(0, count)
                          : std::pair(std::min(choice, count), std::min(choice + 1, count));
    };
    const auto [first_row, last_row] = bounds(input.choice.row, rows);
    const auto [first_group, last_group] = bounds(input.choice.group, groups);
    return {first_row, last_row, first_group, last_group, width, cols};
}

/// x ↦ x · factor + offset: the unit of one group.
struct ToUnit {
    double factor = 1.0;
    double offset = 0.0;
    double operator()(double x) const { return x * factor + offset; }
};

ToUnit unit_of(const HistogramInput& input, Index row, Index group)
{
    if (input.unit == ValueUnit::Plain || !has_scalar_grid(input))
        return {};
    const double scale = input.grid.scales(row, group);
    if (!std::isfinite(scale) || scale == 0.0)
        return {};
    if (input.grid.grid.symmetric || input.grid.zeros.size() == 0)
        return {1.0 / scale, 0.0};
    const double zero = input.grid.zeros(row, group);
    return {1.0 / scale, has_minimum(input.grid.grid) ? zero / scale : zero};
}

/// Where a group's values are cut off and where they become zero.
struct Borders {
    double clip_low = 0.0;
    double clip_high = 0.0;
    bool has_dead_zone = false;
    double dead_low = 0.0;
    double dead_high = 0.0;
};

/// Codes of one group and what they stand for, rising or falling with the sign of the scale.
struct Codes {
    const ScalarGrid& grid;
    float scale;
    float zero;
    int lowest;
    int highest;

    double value(int code) const { return static_cast<double>(grid_value(grid, scale, zero, code)); }
};

/// Of a grid that was fitted to values that are not finite, 0.
float finite_or_zero(float value) { return std::isfinite(value) ? value : 0.0F; }

Codes codes_of(const QuantizedMatrix& matrix, Index row, Index group)
{
    const float zero = matrix.zeros.size() > 0 ? finite_or_zero(matrix.zeros(row, group)) : 0.0F;
    const int lowest = static_cast<int>(std::lround(lowest_code(matrix.grid, zero)));
    return {matrix.grid, finite_or_zero(matrix.scales(row, group)), zero, lowest,
            lowest + static_cast<int>(std::lround(code_span(matrix.grid)))};
}

Borders borders_of(const Codes& codes)
{
    const double first = codes.value(codes.lowest);
    const double last = codes.value(codes.highest);
    const double before = first - 0.5 * (codes.value(codes.lowest + 1) - first);
    const double behind = last + 0.5 * (last - codes.value(codes.highest - 1));
    Borders borders{std::min(before, behind), std::max(before, behind), false, 0.0, 0.0};
    // Zero is code 0 everywhere but in K types with a minimum, where a code may or may not meet it.
    const double offset = has_minimum(codes.grid) && codes.scale != 0.0F
                              ? std::nearbyint(static_cast<double>(codes.zero) / codes.scale)
                              : 0.0;
    const int at_zero = static_cast<int>(
        std::clamp(offset, static_cast<double>(codes.lowest), static_cast<double>(codes.highest)));
    if (codes.value(at_zero) != 0.0)
        return borders;
    // An outermost zero also takes all that lies beyond it.
    constexpr double k_infinite = std::numeric_limits<double>::infinity();
    const double sign = codes.scale < 0.0F ? -1.0 : 1.0;
    const double down = at_zero == codes.lowest ? -sign * k_infinite : 0.5 * codes.value(at_zero - 1);
    const double up = at_zero == codes.highest ? sign * k_infinite : 0.5 * codes.value(at_zero + 1);
    borders.has_dead_zone = true;
    borders.dead_low = std::min(down, up);
    borders.dead_high = std::max(down, up);
    return borders;
}

/// The chosen group with the median |scale|; of one group that one.
std::pair<Index, Index> typical_group(const QuantizedMatrix& matrix, const Chosen& chosen)
{
    std::vector<std::pair<Index, Index>> places;
    places.reserve(static_cast<std::size_t>(chosen.count()));
    for (Index row = chosen.first_row; row < chosen.last_row; ++row)
        for (Index group = chosen.first_group; group < chosen.last_group; ++group)
            places.emplace_back(row, group);
    const auto middle = places.begin() + static_cast<std::ptrdiff_t>((places.size() - 1) / 2);
    std::nth_element(places.begin(), middle, places.end(), [&matrix](const auto& a, const auto& b) {
        const float first = std::abs(finite_or_zero(matrix.scales(a.first, a.second)));
        const float second = std::abs(finite_or_zero(matrix.scales(b.first, b.second)));
        return first != second ? first < second : a < b;
    });
    return *middle;
}

/// Values below and above what a group keeps, and those it makes zero.
struct Losses {
    std::uint64_t values = 0;
    std::uint64_t zeroed = 0;
    std::uint64_t clipped = 0;
};

Losses losses_of(const HistogramInput& input, const Chosen& chosen)
{
    std::vector<Losses> parts(row_tile_count(chosen.rows()));
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        Losses& part = parts[tile];
        for (Index row = first; row < last; ++row) {
            for (Index group = chosen.first_group; group < chosen.last_group; ++group) {
                const Borders fit = borders_of(codes_of(input.grid, row, group));
                for (Index j = chosen.first_column(group); j < chosen.last_column(group); ++j) {
                    const double value = input.values(row, j);
                    if (!std::isfinite(value))
                        continue;
                    ++part.values;
                    part.clipped += value < fit.clip_low || value > fit.clip_high ? 1 : 0;
                    part.zeroed +=
                        fit.has_dead_zone && value >= fit.dead_low && value <= fit.dead_high ? 1 : 0;
                }
            }
        }
    });
    Losses all;
    for (const Losses& part : parts) {
        all.values += part.values;
        all.zeroed += part.zeroed;
        all.clipped += part.clipped;
    }
    return all;
}

bool alike_zeros(const QuantizedMatrix& matrix, const Chosen& chosen)
{
    if (matrix.zeros.size() == 0)
        return true;
    const auto block = matrix.zeros.block(chosen.first_row, chosen.first_group, chosen.rows(),
                                          chosen.last_group - chosen.first_group);
    return (block.array() == block(0, 0)).all();
}

/// What a tile of rows adds to a histogram.
struct Part {
    std::vector<std::uint64_t> counts;
    std::uint64_t values = 0;
    std::uint64_t not_finite = 0;
    double minimum = std::numeric_limits<double>::infinity();
    double maximum = -std::numeric_limits<double>::infinity();
    double squares = 0.0;
};

/// Calls body with every chosen value of these rows, in the histogram's unit.
template <class Body>
void each_value(const HistogramInput& input, const Chosen& chosen, Index first, Index last, const Body& body)
{
    for (Index row = first; row < last; ++row) {
        for (Index group = chosen.first_group; group < chosen.last_group; ++group) {
            const ToUnit unit = unit_of(input, row, group);
            for (Index j = chosen.first_column(group); j < chosen.last_column(group); ++j)
                body(unit(static_cast<double>(input.values(row, j))));
        }
    }
}

} // namespace

ValueRange value_range(const HistogramInput& input)
{
    const Chosen chosen = chosen_groups(input);
    std::vector<Part> parts(row_tile_count(chosen.rows()));
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        Part& part = parts[tile];
        each_value(input, chosen, first, last, [&part](double value) {
            if (!std::isfinite(value))
                return;
            part.minimum = std::min(part.minimum, value);
            part.maximum = std::max(part.maximum, value);
        });
    });
    ValueRange range{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
    for (const Part& part : parts) {
        range.low = std::min(range.low, part.minimum);
        range.high = std::max(range.high, part.maximum);
    }
    return range.low <= range.high ? range : ValueRange{};
}

ValueHistogram value_histogram(const HistogramInput& input, const ValueRange& range, int bins)
{
    ValueHistogram result;
    result.low = range.low;
    result.high = range.high;
    if (!(result.low < result.high)) { // one value, or none: a bin of some width around it
        const double half = range.low != 0.0 ? 1e-3 * std::abs(range.low) : 1e-3;
        result.low = range.low - half;
        result.high = range.low + half;
        bins = 1;
    }
    const Chosen chosen = chosen_groups(input);
    std::vector<Part> parts(row_tile_count(chosen.rows()));
    const double per_value = bins / (result.high - result.low);
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        Part& part = parts[tile];
        part.counts.resize(static_cast<std::size_t>(bins));
        each_value(input, chosen, first, last, [&](double value) {
            if (!std::isfinite(value)) {
                ++part.not_finite;
                return;
            }
            ++part.values;
            part.squares += value * value;
            part.minimum = std::min(part.minimum, value);
            part.maximum = std::max(part.maximum, value);
            if (value < result.low || value > result.high)
                return;
            const int bin = std::min(static_cast<int>((value - result.low) * per_value), bins - 1);
            ++part.counts[static_cast<std::size_t>(bin)];
        });
    });
    result.counts.assign(static_cast<std::size_t>(bins), 0);
    double squares = 0.0;
    double least = std::numeric_limits<double>::infinity();
    double most = -least;
    for (const Part& part : parts) {
        for (std::size_t bin = 0; bin < part.counts.size(); ++bin)
            result.counts[bin] += part.counts[bin];
        result.values += part.values;
        result.not_finite += part.not_finite;
        squares += part.squares;
        least = std::min(least, part.minimum);
        most = std::max(most, part.maximum);
    }
    if (result.values > 0) {
        result.minimum = least;
        result.maximum = most;
        result.rms = std::sqrt(squares / static_cast<double>(result.values));
    }
    return result;
}

GridFit grid_fit(const HistogramInput& input)
{
    const Chosen chosen = chosen_groups(input);
    if (!has_scalar_grid(input) || chosen.count() == 0)
        return {};
    const auto [row, group] = typical_group(input.grid, chosen);
    const Codes codes = codes_of(input.grid, row, group);
    const Borders borders = borders_of(codes);
    GridFit fit;
    fit.grids = chosen.count();
    fit.scale = static_cast<double>(codes.scale);
    fit.has_dead_zone = borders.has_dead_zone;
    fit.dead_low = borders.dead_low;
    fit.dead_high = borders.dead_high;
    fit.clip_low = borders.clip_low;
    fit.clip_high = borders.clip_high;
    for (int code = codes.lowest; code <= codes.highest; ++code)
        fit.levels.push_back(codes.value(code));
    std::sort(fit.levels.begin(), fit.levels.end()); // scales of K types may be negative
    if (input.unit == ValueUnit::Steps) {
        const ToUnit unit = unit_of(input, row, group);
        for (double& level : fit.levels)
            level = unit(level);
        std::sort(fit.levels.begin(), fit.levels.end());
        for (auto [low, high] :
             {std::pair(&fit.dead_low, &fit.dead_high), std::pair(&fit.clip_low, &fit.clip_high)}) {
            const double a = unit(*low);
            const double b = unit(*high);
            *low = std::min(a, b);
            *high = std::max(a, b);
        }
        fit.has_dead_zone = fit.has_dead_zone && alike_zeros(input.grid, chosen);
    }
    const Losses losses = losses_of(input, chosen);
    if (losses.values > 0) {
        fit.zeroed = static_cast<double>(losses.zeroed) / static_cast<double>(losses.values);
        fit.clipped = static_cast<double>(losses.clipped) / static_cast<double>(losses.values);
    }
    return fit;
}

} // namespace rankscope
