// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/value_histogram.h"

#include "core/base/multiarch.h"
#include "core/compute/grid_levels.h"
#include "core/tensor/row_tiles.h"

#include <algorithm>
#include <array>
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

RANKSCOPE_INLINE bool is_number(float value)
{
    return std::abs(value) <= std::numeric_limits<float>::max(); // false for NaN
}

/// Adds the values of one group.
RANKSCOPE_MULTIARCH
void count_losses(const float* values, Index count, const Borders& borders, Losses& sum)
{
    const double low = borders.clip_low;
    const double high = borders.clip_high;
    constexpr double k_infinite = std::numeric_limits<double>::infinity();
    const double dead_low = borders.has_dead_zone ? borders.dead_low : k_infinite;
    const double dead_high = borders.has_dead_zone ? borders.dead_high : -k_infinite;
    std::uint32_t numbers = 0; // a row has fewer columns than that holds
    std::uint32_t clipped = 0;
    std::uint32_t zeroed = 0;
    for (Index i = 0; i < count; ++i) {
        const std::uint32_t number = is_number(values[i]) ? 1U : 0U;
        const double value = values[i];
        const std::uint32_t below = value < low ? 1U : 0U;
        const std::uint32_t above = value > high ? 1U : 0U;
        const std::uint32_t from = value >= dead_low ? 1U : 0U;
        const std::uint32_t to = value <= dead_high ? 1U : 0U;
        numbers += number;
        clipped += number & (below | above);
        zeroed += number & from & to;
    }
    sum.values += numbers;
    sum.clipped += clipped;
    sum.zeroed += zeroed;
}

Losses losses_of(const HistogramInput& input, const Chosen& chosen)
{
    std::vector<Losses> parts(row_tile_count(chosen.rows()));
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        Losses& part = parts[tile];
        for (Index row = first; row < last; ++row) {
            for (Index group = chosen.first_group; group < chosen.last_group; ++group) {
                const Borders fit = borders_of(codes_of(input.grid, row, group));
                const Index begin = chosen.first_column(group);
                count_losses(input.values.row(row).data() + begin, chosen.last_column(group) - begin, fit,
                             part);
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

/// Of a choice's groups all columns.
Index values_in(const Chosen& chosen)
{
    return chosen.count() == 0
               ? 0
               : chosen.rows()
                     * (chosen.last_column(chosen.last_group - 1) - chosen.first_column(chosen.first_group));
}

/// Calls body(values, count, unit) with the chosen values of these rows, stretch by stretch of one unit.
template <class Body>
void each_stretch(const HistogramInput& input, const Chosen& chosen, Index first, Index last,
                  const Body& body)
{
    if (chosen.count() == 0)
        return;
    for (Index row = first; row < last; ++row) {
        const float* values = input.values.row(row).data();
        if (input.unit == ValueUnit::Plain) { // the groups of a row are beside each other
            const Index begin = chosen.first_column(chosen.first_group);
            body(values + begin, chosen.last_column(chosen.last_group - 1) - begin, ToUnit{});
            continue;
        }
        for (Index group = chosen.first_group; group < chosen.last_group; ++group) {
            const Index begin = chosen.first_column(group);
            body(values + begin, chosen.last_column(group) - begin, unit_of(input, row, group));
        }
    }
}

constexpr Index k_lanes = 16;

/// Widens low_high[0] … low_high[1] to hold the finite values.
RANKSCOPE_MULTIARCH
void widen(const float* values, Index count, float* low_high)
{
    constexpr float k_infinite = std::numeric_limits<float>::infinity();
    float low[k_lanes];
    float high[k_lanes];
    std::fill(low, low + k_lanes, k_infinite);
    std::fill(high, high + k_lanes, -k_infinite);
    const Index whole = count - count % k_lanes;
    for (Index first = 0; first < whole; first += k_lanes) {
        for (Index lane = 0; lane < k_lanes; ++lane) {
            const float value = values[first + lane];
            const float above = is_number(value) ? value : k_infinite;
            const float below = is_number(value) ? value : -k_infinite;
            low[lane] = above < low[lane] ? above : low[lane];
            high[lane] = below > high[lane] ? below : high[lane];
        }
    }
    for (Index i = whole; i < count; ++i) {
        if (!is_number(values[i]))
            continue;
        low[0] = std::min(low[0], values[i]);
        high[0] = std::max(high[0], values[i]);
    }
    for (Index lane = 0; lane < k_lanes; ++lane) {
        low_high[0] = std::min(low_high[0], low[lane]);
        low_high[1] = std::max(low_high[1], high[lane]);
    }
}

void widen(ValueRange& range, const float* values, Index count, const ToUnit& unit)
{
    float ends[2] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
    widen(values, count, ends);
    if (!(ends[0] <= ends[1]))
        return;
    for (const double end : {unit(ends[0]), unit(ends[1])}) { // scales may be negative
        range.low = std::min(range.low, end);
        range.high = std::max(range.high, end);
    }
}

constexpr ValueRange k_nothing{std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity()};

/// Where values are counted: bins over [low, high] and, behind them, one for all others.
struct Bins {
    double low = 0.0;
    double high = 0.0;
    double per_value = 0.0;
    int count = 0;
};

/// What of a tile is summed beside the counts.
struct Sums {
    std::uint64_t values = 0;
    double squares = 0.0;
};

/// The bin of each of at most k_chunk values; the finite ones are summed. Kept apart from the counting, this
/// becomes vector code.
constexpr Index k_chunk = 256;
RANKSCOPE_MULTIARCH
void find_bins(const float* __restrict values, Index count, double factor, double offset, const Bins& bins,
               std::int32_t* __restrict places, Sums& sums)
{
    const double low = bins.low;
    const double high = bins.high;
    const double per_value = bins.per_value;
    const double last = bins.count - 1;
    const double outside = bins.count;
    double squares[k_chunk];
    std::uint32_t numbers = 0;
    for (Index i = 0; i < count; ++i) {
        const bool number = is_number(values[i]);
        const double value = number ? static_cast<double>(values[i]) * factor + offset : 0.0;
        const double raw = (value - low) * per_value;
        const double place = raw < last ? raw : last;
        const bool counted = (number & (value >= low)) & (value <= high);
        places[i] = static_cast<std::int32_t>(counted ? place : outside);
        squares[i] = value * value;
        numbers += number ? 1U : 0U;
    }
    sums.values += numbers;
    double lanes[k_lanes] = {};
    const Index whole = count - count % k_lanes;
    for (Index first = 0; first < whole; first += k_lanes)
        for (Index lane = 0; lane < k_lanes; ++lane)
            lanes[lane] += squares[first + lane];
    for (Index i = whole; i < count; ++i)
        lanes[i - whole] += squares[i];
    for (const double lane : lanes)
        sums.squares += lane;
}

/// Counts in several tables at once: neighbors that fall into one bin need not wait for each other.
class BinCounter {
public:
    explicit BinCounter(const Bins& bins) : bins_(bins)
    {
        for (std::vector<std::uint32_t>& table : tables_)
            table.assign(static_cast<std::size_t>(bins.count) + 1, 0);
    }
    void add(const float* values, Index count, const ToUnit& unit, Sums& sums)
    {
        std::int32_t places[k_chunk];
        for (Index first = 0; first < count; first += k_chunk) {
            const Index here = std::min(k_chunk, count - first);
            find_bins(values + first, here, unit.factor, unit.offset, bins_, places, sums);
            for (Index i = 0; i < here; ++i)
                ++tables_[static_cast<std::size_t>(i % 4)][static_cast<std::size_t>(places[i])];
        }
    }
    std::vector<std::uint64_t> counts() const
    {
        std::vector<std::uint64_t> sum(static_cast<std::size_t>(bins_.count), 0);
        for (const std::vector<std::uint32_t>& table : tables_)
            for (std::size_t bin = 0; bin < sum.size(); ++bin)
                sum[bin] += table[bin];
        return sum;
    }

private:
    Bins bins_;
    std::array<std::vector<std::uint32_t>, 4> tables_;
};

} // namespace

ValueRange value_range(const HistogramInput& input)
{
    const Chosen chosen = chosen_groups(input);
    std::vector<ValueRange> parts(row_tile_count(chosen.rows()), k_nothing);
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        each_stretch(input, chosen, first, last,
                     [&part = parts[tile]](const float* values, Index count, const ToUnit& unit) {
                         widen(part, values, count, unit);
                     });
    });
    ValueRange range = k_nothing;
    for (const ValueRange& part : parts) {
        range.low = std::min(range.low, part.low);
        range.high = std::max(range.high, part.high);
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
    const Bins all{result.low, result.high, bins / (result.high - result.low), bins};
    struct Part {
        std::vector<std::uint64_t> counts;
        Sums sums;
        ValueRange ends = k_nothing;
    };
    std::vector<Part> parts(row_tile_count(chosen.rows()));
    each_row_tile(chosen.first_row, chosen.last_row, [&](std::size_t tile, Index first, Index last) {
        BinCounter counter(all);
        each_stretch(input, chosen, first, last, [&](const float* values, Index count, const ToUnit& unit) {
            counter.add(values, count, unit, parts[tile].sums);
            widen(parts[tile].ends, values, count, unit);
        });
        parts[tile].counts = counter.counts();
    });
    result.counts.assign(static_cast<std::size_t>(bins), 0);
    Sums sums;
    ValueRange ends = k_nothing;
    for (const Part& part : parts) {
        for (std::size_t bin = 0; bin < part.counts.size(); ++bin)
            result.counts[bin] += part.counts[bin];
        sums.values += part.sums.values;
        sums.squares += part.sums.squares;
        ends.low = std::min(ends.low, part.ends.low);
        ends.high = std::max(ends.high, part.ends.high);
    }
    result.values = sums.values;
    result.not_finite = static_cast<std::uint64_t>(values_in(chosen)) - sums.values;
    if (result.values > 0) {
        result.minimum = ends.low;
        result.maximum = ends.high;
        result.rms = std::sqrt(sums.squares / static_cast<double>(result.values));
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
