// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/grid_levels.h"
#include "gpu/self_test/families.h"
#include "gpu/self_test/grid_cases.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope::gpu::self_test {

namespace {

/// The share of codes that differ, those apart whose weight lies on a tie: there the last bit of a division
/// decides.
double code_share(const Matrix& codes, const Matrix& expected, const Matrix& w, const Matrix& values)
{
    if (codes.rows() != expected.rows() || codes.cols() != expected.cols() || !codes.allFinite())
        return k_infinity;
    Index wrong = 0;
    for (Index i = 0; i < codes.size(); ++i) {
        const float code = expected.data()[i];
        if (codes.data()[i] == code)
            continue;
        const float step = code != 0.0F ? values.data()[i] / code : 0.0F;
        const float steps = step != 0.0F ? w.data()[i] / step : 0.0F;
        const float distance = std::abs(std::abs(steps - std::floor(steps)) - 0.5F);
        wrong += code == 0.0F || distance > 1e-4F ? 1 : 0;
    }
    return static_cast<double>(wrong) / static_cast<double>(codes.size());
}

void add_nearest(Cases& cases)
{
    for (const GridCase& item : grid_cases()) {
        add(cases, "fit_grid " + grid_name(item), k_float_tolerance, [item](Backend& backend) {
            const GridBuffers fitted =
                backend.fit_grid(backend.upload(normal_matrix(item.rows, item.cols, "w")), item.grid);
            MatrixD both(item.rows, 2 * fitted.scales.cols());
            both << backend.download_double(fitted.scales), backend.download_double(fitted.zeros);
            return both;
        });
        cases.push_back(
            {"round_nearest " + grid_name(item), 1e-3, [item](Backend& device, Backend& reference) {
                 const Matrix w = normal_matrix(item.rows, item.cols, "w");
                 const Buffer expected_w = reference.upload(w);
                 const GridBuffers grid = reference.fit_grid(expected_w, item.grid);
                 const RoundedBuffers expected = reference.round_nearest(expected_w, grid);
                 const GridBuffers same{item.grid, device.upload(reference.download(grid.scales)),
                                        device.upload(reference.download(grid.zeros))};
                 const RoundedBuffers rounded = device.round_nearest(device.upload(w), same);
                 const Matrix values = reference.download(expected.values);
                 const double share = code_share(device.download(rounded.codes),
                                                 reference.download(expected.codes), w, values);
                 const double error =
                     normalized_error(device.download_double(rounded.values), values.cast<double>());
                 return share > 0.0 || error < 1e-6 ? share : error; // same codes: the same values
             }});
    }
}

/// Σ |q(w) − w|^norm of every group for a fitted grid.
MatrixD search_errors(const Matrix& w, const GridBuffers& grid, Backend& backend)
{
    const Matrix scales = backend.download(grid.scales);
    const Matrix zeros = backend.download(grid.zeros);
    const Index width = grid.grid.group_width(w.cols());
    MatrixD errors = MatrixD::Zero(scales.rows(), scales.cols());
    for (Index i = 0; i < w.rows(); ++i) {
        for (Index j = 0; j < w.cols(); ++j) {
            const auto scale = static_cast<double>(scales(i, j / width));
            const double weight = static_cast<double>(w(i, j));
            const double value = scale * nearest_code(grid.grid, zeros(i, j / width), weight / scale);
            errors(i, j / width) += std::pow(std::abs(value - weight), grid.grid.clip_norm);
        }
    }
    return errors;
}

/// Several candidates may be equally good to float32's precision: what counts is how good the chosen one is.
void add_clip_searches(Cases& cases)
{
    std::vector<GridCase> searches;
    for (const GridCase& item : grid_cases()) {
        if (item.grid.group < 0 || item.grid.levels != GridLevels::Integers)
            continue;
        for (const ClipSearch clip : {ClipSearch::Shrink, ClipSearch::Grid}) {
            searches.push_back(item);
            searches.back().grid.clip = clip;
        }
    }
    searches.push_back({3, 1201, {.bits = 2, .group = 0, .clip = ClipSearch::Shrink}}); // longer than a chunk
    for (const GridCase& item : searches) {
        cases.push_back({fmt::format("fit_grid {} clip {}", grid_name(item),
                                     item.grid.clip == ClipSearch::Shrink ? "shrink" : "grid"),
                         1e-5, [item](Backend& device, Backend& reference) {
                             Matrix w = normal_matrix(item.rows, item.cols, "w");
                             w.row(item.rows / 2).setZero(); // a range without width
                             const MatrixD got =
                                 search_errors(w, device.fit_grid(device.upload(w), item.grid), device);
                             const MatrixD best = search_errors(
                                 w, reference.fit_grid(reference.upload(w), item.grid), reference);
                             if (!got.allFinite() || got.rows() != best.rows() || got.cols() != best.cols())
                                 return k_infinity;
                             // A group of few weights may be met so well that only rounding errors are left
                             // of it.
                             return ((got - best).array().abs() / best.array().max(1e-4)).maxCoeff();
                         }});
    }
}

} // namespace

std::vector<GridCase> grid_cases()
{
    const auto of_levels = [](GridLevels levels, int bits, Index group) {
        const bool minimum = levels == GridLevels::Kquant && kquant_has_minimum(bits);
        return UniformGrid{.bits = bits, .group = group, .symmetric = !minimum, .levels = levels};
    };
    const auto symmetric = [](int bits, Index group, SymmetricRule rule) {
        return UniformGrid{.bits = bits, .group = group, .symmetric = true, .rule = rule};
    };
    return {{1, 1, {.bits = 2, .group = 64}},
            {7, 172, {.bits = 2, .group = 64}},
            {33, 129, {.bits = 3, .group = 32}},
            {31, 97, {.bits = 4, .group = 0}},
            {5, 61, {.bits = 8, .group = -1}},
            {13, 172, symmetric(4, 64, SymmetricRule::Full)},
            {29, 131, symmetric(3, 32, SymmetricRule::Restricted)},
            {9, 70, of_levels(GridLevels::NormalFloat, 2, 32)},
            {17, 131, of_levels(GridLevels::NormalFloat, 3, 64)},
            {33, 129, of_levels(GridLevels::NormalFloat, 4, 0)},
            {23, 97, of_levels(GridLevels::MxInt, 4, 32)},
            {5, 512, of_levels(GridLevels::Kquant, 2, 16)},
            {7, 256, of_levels(GridLevels::Kquant, 3, 16)},
            {3, 512, of_levels(GridLevels::Kquant, 4, 32)}};
}

std::string grid_name(const GridCase& item)
{
    const char* levels = item.grid.levels == GridLevels::NormalFloat ? " normal float"
                         : item.grid.levels == GridLevels::MxInt     ? " shared exponent"
                         : item.grid.levels == GridLevels::Kquant    ? " K type"
                         : item.grid.symmetric                       ? " symmetric"
                                                                     : "";
    return fmt::format("{}x{} {} bit g{}{}", item.rows, item.cols, item.grid.bits, item.grid.group, levels);
}

void add_grids(Cases& cases)
{
    add_nearest(cases);
    add_clip_searches(cases);
}

} // namespace rankscope::gpu::self_test
