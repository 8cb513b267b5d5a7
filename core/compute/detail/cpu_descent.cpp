// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/compute/detail/cpu_backend.h"
#include "core/compute/grid_levels.h"

#include <cmath>

namespace rankscope::detail {
namespace {

constexpr Index k_rows = 32; ///< rows per tile, fixed: threads change no byte

/// Codes on their way down.
struct Descent {
    const MatrixD& hessian;
    const Matrix& scales;
    const Matrix& zeros;
    const UniformGrid& grid;
    Matrix& codes;

    float value(Index row, Index col, Index width) const
    {
        const Index group = col / width;
        return grid_value(grid, scales(row, group), zeros(row, group),
                          static_cast<int>(std::lrintf(codes(row, col))));
    }
};

/// One weight: its code becomes the conditional optimum. `slope` holds (w − q)·H of the row and is kept up to
/// date.
void tune_weight(const Descent& task, Index row, Index k, Eigen::Ref<Eigen::RowVectorXd> slope)
{
    const Index group = k / task.grid.group_width(task.hessian.rows());
    const double diagonal = task.hessian(k, k);
    const float scale = task.scales(row, group);
    if (!(diagonal > 0.0) || scale == 0.0F)
        return;
    const auto level =
        static_cast<double>(grid_level(task.grid, static_cast<int>(std::lrintf(task.codes(row, k)))));
    const double target = level + slope(k) / (diagonal * static_cast<double>(scale));
    const int code = nearest_code(task.grid, task.zeros(row, group), target);
    const auto next = static_cast<double>(grid_level(task.grid, code));
    // At an exact tie both codes cost the same: the old one stays, or two passes could alternate.
    if (std::abs(next - target) >= std::abs(level - target))
        return;
    slope -= (next - level) * static_cast<double>(scale) * task.hessian.row(k);
    task.codes(row, k) = static_cast<float>(code);
}

} // namespace

RoundedBuffers CpuBackend::tune_codes(const Buffer& w, const RoundedBuffers& start, const GridBuffers& grid,
                                      const Buffer& hessian, int passes)
{
    const Index n = w.cols();
    const Index groups = grid.grid.groups(n);
    require(start.codes.rows() == w.rows() && start.codes.cols() == n, "tune_codes",
            "codes have another shape");
    require(grid.scales.rows() == w.rows() && grid.scales.cols() == groups && grid.zeros.rows() == w.rows()
                && grid.zeros.cols() == groups,
            "tune_codes", "scales or zero points have another shape");
    require(hessian.rows() == n && hessian.cols() == n, "tune_codes",
            "the Hessian has another size than the rows");
    Matrix codes = single_copy(start.codes);
    Matrix values(w.rows(), n);
    if (!w.empty()) {
        const Matrix weight = single_copy(w);
        const bool twice = hessian.precision() == Precision::Float64;
        const MatrixD widened = twice ? MatrixD() : double_copy(hessian);
        const MatrixD& moments = twice ? elements<double>(hessian) : widened;
        const Matrix scales = single_copy(grid.scales);
        const Matrix zeros = single_copy(grid.zeros);
        const Index width = grid.grid.group_width(n);
        const Descent task{moments, scales, zeros, grid.grid, codes};
        for_stretches(w.rows(), k_rows, [&](Index first, Index count) {
            const auto dequantize = [&] {
                for (Index row = first; row < first + count; ++row)
                    for (Index col = 0; col < n; ++col)
                        values(row, col) = task.value(row, col, width);
            };
            dequantize();
            for (int pass = 0; pass < passes; ++pass) {
                MatrixD slope = (weight.middleRows(first, count).cast<double>()
                                 - values.middleRows(first, count).cast<double>())
                                * moments;
                // Rows do not know each other: by columns, so that all rows of a tile share each row of H.
                for (Index k = 0; k < n; ++k)
                    for (Index row = 0; row < count; ++row)
                        tune_weight(task, first + row, k, slope.row(row));
                dequantize();
            }
        });
    }
    return {make_buffer(std::move(values)), make_buffer(std::move(codes))};
}

} // namespace rankscope::detail
