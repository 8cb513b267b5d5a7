// SPDX-License-Identifier: GPL-3.0-or-later
// Rounding that is learned, and its gradient: LRQ's and FlexRound's (core/compute/training.h).
#include "gpu/operations.h"

#include "core/compute/grid_levels.h"
#include "core/compute/learned_check.h"

#include <algorithm>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_group_lanes = 64;

} // namespace

/// Whether the kernels round like this: whole-number steps, and tables and rows within a binding.
bool VulkanBackend::fits_learned(const Buffer& w, const LearnedGrid& grid) const
{
    const bool rows_fit = static_cast<VkDeviceSize>(w.rows()) * sizeof(float) <= binding_limit_ / 2;
    return grid.grid.levels == GridLevels::Integers && rows_fit
           && fits({&w, &grid.scales, &grid.zeros, &grid.shift, &grid.exponent, &grid.rows})
           && (grid.columns.empty() || fits({&grid.columns}));
}

/// (s₀ · exp(δ), lowest code) of every row and group.
std::shared_ptr<DeviceRange> VulkanBackend::pack_learned(const LearnedGrid& grid)
{
    const Index groups = grid.scales.cols();
    auto packed = new_range(static_cast<VkDeviceSize>(2 * grid.scales.size()) * sizeof(float));
    struct Push {
        std::uint32_t count, base_packed, symmetric;
        float lowest;
    };
    const float lowest = lowest_code(grid.grid, 0.0F); // of symmetric grids
    const Index step = std::max<Index>(64, static_cast<Index>(binding_limit_ / 16) / 64 * 64);
    const Index total = grid.scales.rows() * groups;
    for (Index start = 0; start < total; start += step) {
        const Index count = std::min(step, total - start);
        const View pairs = view(packed, 2 * start, 2 * count, Access::Write);
        run(Kernel::PackLearned, {},
            {view(range_of(grid.scales), start, count, Access::Read).binding,
             view(range_of(grid.shift), start, count, Access::Read).binding,
             view(range_of(grid.zeros), start, count, Access::Read).binding, pairs.binding},
            Push{u32(count), pairs.base, grid.grid.symmetric ? 1U : 0U, lowest}, flat_groups(count),
            k_element_flops * static_cast<double>(count));
    }
    return packed;
}

LearnedRounding VulkanBackend::round_learned(const Buffer& w, const LearnedGrid& grid)
{
    const char* misfit = learned_misfit(w, grid);
    require(misfit == nullptr, "round_learned", misfit);
    if (!fits_learned(w, grid))
        return HostFallbackBackend::round_learned(w, grid);
    const Index cols = w.cols();
    const Index groups = grid.scales.cols();
    const auto packed = pack_learned(grid);
    LearnedRounding rounding{new_buffer(w.rows(), cols), new_buffer(w.rows(), cols)};
    struct ExponentPush {
        std::uint32_t count, cols, base_rows, base_exponent, base_total;
    };
    struct RoundPush {
        std::uint32_t count, cols, width, groups;
        std::uint32_t base_w, base_grid, base_ratio, base_values;
        float span;
    };
    const double flops = 2.0 * k_element_flops * static_cast<double>(cols);
    for_rows(w.rows(), std::max(cols, 2 * groups), flops, [&](Index first, Index count) {
        const Index elements = count * cols;
        const View exponent = rows_view(grid.exponent, first, count, Access::Read);
        const View of_rows = rows_view(grid.rows, first, count, Access::Read);
        const View total = rows_view(rounding.ratio, first, count, Access::Write);
        const Binding of_columns =
            grid.columns.empty() ? of_rows.binding : rows_view(grid.columns, 0, 1, Access::Read).binding;
        run(Kernel::LearnedExponent, {lanes_, grid.columns.empty() ? 0U : 1U},
            {exponent.binding, of_rows.binding, of_columns, total.binding},
            ExponentPush{u32(elements), u32(cols), of_rows.base, exponent.base, total.base},
            flat_groups(elements), flops * static_cast<double>(count));
        const View weights = rows_view(w, first, count, Access::Read);
        const View pairs = view(packed, first * 2 * groups, count * 2 * groups, Access::Read);
        const View ratio = rows_view(rounding.ratio, first, count, Access::ReadWrite);
        const View values = rows_view(rounding.values, first, count, Access::Write);
        run(Kernel::RoundLearned, {}, {weights.binding, pairs.binding, ratio.binding, values.binding},
            RoundPush{u32(elements), u32(cols), u32(grid.grid.group_width(cols)), u32(groups), weights.base,
                      pairs.base, ratio.base, values.base, code_span(grid.grid)},
            flat_groups(elements), flops * static_cast<double>(count));
    });
    return rounding;
}

LearnedGradient VulkanBackend::round_learned_backward(const Buffer& dvalues, const Buffer& ratio,
                                                      const LearnedGrid& grid)
{
    const char* operation = "round_learned_backward";
    const char* misfit = learned_misfit(dvalues, grid);
    require(misfit == nullptr, operation, misfit);
    require(ratio.rows() == dvalues.rows() && ratio.cols() == dvalues.cols()
                && ratio.precision() == dvalues.precision(),
            operation, "ratio and gradient differ in shape");
    if (!fits_learned(dvalues, grid) || !fits({&ratio}))
        return HostFallbackBackend::round_learned_backward(dvalues, ratio, grid);
    const Index rows = dvalues.rows();
    const Index cols = dvalues.cols();
    const Index groups = grid.scales.cols();
    const auto packed = pack_learned(grid);
    LearnedGradient gradient{new_buffer(rows, cols), new_buffer(rows, groups), new_buffer(rows, 1), {}};
    struct GradientPush {
        std::uint32_t rows, cols, width, groups;
        std::uint32_t base_slope, base_ratio, base_grid, base_d;
        float span;
    };
    struct SumsPush {
        std::uint32_t rows, groups, base_sums, base_shift, base_rows;
    };
    const double flops = 2.0 * k_element_flops * static_cast<double>(cols);
    for_rows(rows, std::max(cols, 2 * groups), flops, [&](Index first, Index count) {
        const View slope = rows_view(dvalues, first, count, Access::Read);
        const View at = rows_view(ratio, first, count, Access::Read);
        const View pairs = view(packed, first * 2 * groups, count * 2 * groups, Access::ReadWrite);
        const View d = rows_view(gradient.dexponent, first, count, Access::Write);
        run(Kernel::LearnedGradient, {k_group_lanes}, {slope.binding, at.binding, pairs.binding, d.binding},
            GradientPush{u32(count), u32(cols), u32(grid.grid.group_width(cols)), u32(groups), slope.base,
                         at.base, pairs.base, d.base, code_span(grid.grid)},
            static_cast<std::uint64_t>(count * groups), flops * static_cast<double>(count));
        const View shifts = rows_view(gradient.dshift, first, count, Access::Write);
        const View sums = rows_view(gradient.drows, first, count, Access::Write);
        run(Kernel::LearnedSums, {}, {pairs.binding, shifts.binding, sums.binding},
            SumsPush{u32(count), u32(groups), pairs.base, shifts.base, sums.base}, flat_groups(count),
            k_element_flops * static_cast<double>(count * groups));
    });
    if (!grid.columns.empty())
        gradient.dcolumns = column_sums(gradient.dexponent);
    return gradient;
}

} // namespace rankscope::gpu
