// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/layer_parts.h"

#include "core/tensor/row_tiles.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

Status check_shape(const Matrix& weight, const Decomposition& decomposition)
{
    const bool coded = !decomposition.quantized.empty();
    const Index rows = coded ? decomposition.quantized.rows() : decomposition.low_rank.left.rows();
    const Index cols = coded ? decomposition.quantized.cols() : decomposition.low_rank.right.cols();
    if (rows == weight.rows() && cols == weight.cols())
        return {};
    return bad_input("The decomposition is " + std::to_string(rows) + " × " + std::to_string(cols)
                         + ", the weight " + std::to_string(weight.rows()) + " × "
                         + std::to_string(weight.cols()),
                     {}, "Open the checkpoint that the run was made from");
}

/// What the grid of a layer is given, in the basis that it is stored in.
struct RoundingInput {
    Matrix rotated;   ///< empty without a transform
    Matrix remainder; ///< empty where nothing is taken off
    QuantizedMatrix grid;
};

RoundingInput of_decomposition(const Matrix& weight, const Decomposition& decomposition, Backend& backend)
{
    RoundingInput input;
    if (!decomposition.transform.empty())
        input.rotated = backend.download(decomposition.transform.weight(backend.upload(weight), backend));
    if (decomposition.low_rank.rank() > 0) {
        input.remainder = input.rotated.size() > 0 ? input.rotated : weight;
        input.remainder.noalias() -= decomposition.low_rank.left * decomposition.low_rank.right;
    }
    input.grid = decomposition.quantized;
    return input;
}

/// Fits the grid tile by tile, so that no second copy of the weight is made: body(first row, tile, fitted).
/// Rows do not share scales but where the whole matrix has one; then there is one tile.
template <class Body>
void each_fitted_tile(const Matrix& weight, const ScalarGrid& grid, Backend& backend, const Body& body)
{
    const auto fit = [&](Index first, Index last) {
        const Buffer tile = backend.upload(weight.middleRows(first, last - first));
        body(first, tile, backend.fit_grid(tile, grid));
    };
    if (grid.group < 0)
        fit(0, weight.rows());
    else
        each_row_tile(0, weight.rows(), [&](std::size_t, Index first, Index last) { fit(first, last); });
}

RoundingInput of_plan(const Matrix& weight, const ScalarGrid& grid, const LayerHistogramOptions& options,
                      Backend& backend)
{
    RoundingInput input;
    if (options.rotated)
        input.rotated = backend.download(Incoherence::random(weight.rows(), weight.cols(), 0, options.name)
                                             .weight(backend.upload(weight), backend));
    const Matrix& rounded = options.rotated ? input.rotated : weight;
    input.grid.grid = grid;
    input.grid.scales.resize(weight.rows(), grid.groups(weight.cols()));
    input.grid.zeros.resize(weight.rows(), grid.groups(weight.cols()));
    each_fitted_tile(rounded, grid, backend, [&](Index first, const Buffer& tile, const GridBuffers& fitted) {
        input.grid.scales.middleRows(first, tile.rows()) = backend.download(fitted.scales);
        input.grid.zeros.middleRows(first, tile.rows()) = backend.download(fitted.zeros);
    });
    return input;
}

Status check_choice(const GroupChoice& choice, const LayerHistogram& result)
{
    if (choice.row >= result.rows)
        return usage_error("There is no row " + std::to_string(choice.row) + ": the layer has "
                           + std::to_string(result.rows));
    if (choice.group >= result.groups)
        return usage_error("There is no group " + std::to_string(choice.group) + ": a row has "
                           + std::to_string(result.groups));
    return {};
}

/// Rice's rule: 2·n^⅓.
int fitting_bins(const Matrix& weight, const GroupChoice& choice, const LayerHistogram& layer)
{
    const double rows = choice.row < 0 ? static_cast<double>(weight.rows()) : 1.0;
    const double cols = static_cast<double>(choice.group < 0 ? weight.cols() : layer.group_width);
    return std::clamp(static_cast<int>(2.0 * std::cbrt(rows * cols)), 16, 512);
}

} // namespace

Result<LayerParts> layer_parts(const Matrix& weight, const Decomposition& decomposition, Backend& backend)
{
    if (const Status fits = check_shape(weight, decomposition); !fits)
        return fits.error();
    LayerParts parts{weight, {}, {}, weight};
    const Incoherence& transform = decomposition.transform;
    const auto restored = [&](const Matrix& part) {
        return transform.empty() ? part : transform.restored_weight(part, backend);
    };
    if (!decomposition.quantized.empty()) {
        parts.quantized = restored(decomposition.quantized.dequantize());
        parts.residual -= parts.quantized;
    }
    if (decomposition.low_rank.rank() > 0) {
        parts.low_rank = restored(Matrix(decomposition.low_rank.left * decomposition.low_rank.right));
        parts.residual -= parts.low_rank;
    }
    return parts;
}

LayerParts planned_parts(Matrix weight, const ScalarGrid& grid, Backend& backend)
{
    LayerParts parts{std::move(weight), {}, {}, {}};
    parts.quantized.resize(parts.weight.rows(), parts.weight.cols());
    parts.residual.resize(parts.weight.rows(), parts.weight.cols());
    each_fitted_tile(parts.weight, grid, backend,
                     [&](Index first, const Buffer& tile, const GridBuffers& fitted) {
                         const Buffer values = backend.round_nearest(tile, fitted).values;
                         auto quantized = parts.quantized.middleRows(first, tile.rows());
                         if (const Matrix* here = backend.host_matrix(values))
                             quantized = *here;
                         else
                             quantized = backend.download(values);
                         parts.residual.middleRows(first, tile.rows()) =
                             parts.weight.middleRows(first, tile.rows()) - quantized;
                     });
    return parts;
}

Result<LayerHistogram> layer_histogram(const Matrix& weight, const Decomposition* decomposition,
                                       const ScalarGrid& grid, const LayerHistogramOptions& options,
                                       Backend& backend, Monitor& monitor)
{
    if (decomposition)
        if (const Status fits = check_shape(weight, *decomposition); !fits)
            return fits.error();
    const RoundingInput input = decomposition ? of_decomposition(weight, *decomposition, backend)
                                              : of_plan(weight, grid, options, backend);
    monitor.throw_if_cancelled();
    LayerHistogram result;
    result.from_run = decomposition != nullptr;
    result.lattice = decomposition && decomposition->quantized.codebook == Codebook::E8P;
    result.rows = weight.rows();
    const bool scalar = !result.lattice && input.grid.scales.size() > 0;
    result.groups = scalar ? input.grid.scales.cols() : 1;
    result.group_width = scalar ? input.grid.grid.group_width(weight.cols()) : weight.cols();
    if (const Status there = check_choice(options.choice, result); !there)
        return there.error();

    using Series = LayerHistogram::Series;
    std::vector<std::pair<Series, HistogramInput>> inputs = {
        {Series::Weight, {weight, input.grid, options.choice, options.unit}}};
    if (input.rotated.size() > 0)
        inputs.push_back({Series::Rotated, {input.rotated, input.grid, options.choice, options.unit}});
    if (input.remainder.size() > 0)
        inputs.push_back({Series::Remainder, {input.remainder, input.grid, options.choice, options.unit}});
    ValueRange range = value_range(inputs.front().second);
    for (std::size_t i = 1; i < inputs.size(); ++i) {
        const ValueRange own = value_range(inputs[i].second);
        range = {std::min(range.low, own.low), std::max(range.high, own.high)};
    }
    const int bins = options.bins > 0 ? options.bins : fitting_bins(weight, options.choice, result);
    for (const auto& [series, values] : inputs) {
        monitor.throw_if_cancelled();
        result.values.push_back({series, value_histogram(values, range, bins)});
    }
    monitor.throw_if_cancelled();
    result.fit = grid_fit(inputs.back().second);
    return result;
}

} // namespace rankscope
