// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/operations.h"

#include "core/compute/grid_levels.h"

#include <algorithm>
#include <cmath>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_fit_lanes = 64;

void require_grid(const Buffer& w, const GridBuffers& grid, const char* operation)
{
    require(has_bits(grid.grid.levels, grid.grid.bits), operation,
            "a grid has 2 to 8 bits, NormalFloat 2 to 4, K types 2 to 6");
    const Index groups = grid.grid.groups(w.cols());
    require(grid.scales.rows() == w.rows() && grid.scales.cols() == groups, operation,
            "scales have another shape");
    require(grid.zeros.rows() == w.rows() && grid.zeros.cols() == groups, operation,
            "zero points have another shape");
}

/// What kernels/common/levels.glsl declares.
struct LevelsPush {
    std::uint32_t kind = 0, count = 0; ///< steps, steps above a minimum, a table
    float span = 0.0F, zero = 0.0F;
    float table[16] = {};
};
static_assert(1 << k_most_normal_float_bits == 16);

LevelsPush levels_of(const ScalarGrid& grid)
{
    LevelsPush push{.kind = has_minimum(grid) ? 1U : 0U, .span = code_span(grid)};
    if (grid.levels == GridLevels::NormalFloat) {
        const auto levels = normal_float_levels(grid.bits);
        push.kind = 2;
        push.count = static_cast<std::uint32_t>(levels.size());
        push.zero = static_cast<float>(normal_float_zero(grid.bits));
        std::copy(levels.begin(), levels.end(), push.table);
    }
    return push;
}

constexpr double k_candidate_flops = 30.0; // of a weight: a rounding and a power
/// Rounds of a thread's loops: llvmpipe leaves all loops after 65,535 without a word.
constexpr Index k_most_rounds = 32768;

/// Candidates of a clip search for one group; 0 without one.
Index clip_candidates(const UniformGrid& grid)
{
    if (grid.levels != GridLevels::Integers)
        return 0;
    switch (grid.clip) {
    case ClipSearch::None:
        break;
    case ClipSearch::Shrink:
        return static_cast<Index>(std::lround(grid.clip_shrink * grid.clip_steps));
    case ClipSearch::Grid:
        return grid.symmetric ? grid.clip_steps : grid.clip_steps * (Index{1} << grid.bits);
    }
    return 0;
}

} // namespace

GridBuffers VulkanBackend::fit_grid(const Buffer& w, const UniformGrid& grid)
{
    require(has_bits(grid.levels, grid.bits), "fit_grid",
            "a grid has 2 to 8 bits, NormalFloat 2 to 4, K types 2 to 6");
    const Index width = grid.group_width(w.cols());
    const Index candidates = clip_candidates(grid);
    const Index rounds = (candidates + k_fit_lanes - 1) / k_fit_lanes * width;
    // One range for a whole matrix stays with the host, and so do K types: least squares over several ranges.
    if (!fits({&w}) || grid.levels == GridLevels::Kquant || grid.group < 0 || rounds > k_most_rounds)
        return HostFallbackBackend::fit_grid(w, grid);
    const Index groups = grid.groups(w.cols());
    GridBuffers fitted{grid, new_buffer(w.rows(), groups), new_buffer(w.rows(), groups)};
    struct Push {
        std::uint32_t rows, cols, width, groups;
        std::uint32_t base_w, base_scales, base_zeros;
        std::uint32_t symmetric;
        float levels, symmetric_levels;
        std::uint32_t candidates, by_grid;
        float steps, norm;
    };
    const bool shared_exponent = grid.levels == GridLevels::MxInt;
    const float symmetric_levels = shared_exponent ? static_cast<float>(1 << (grid.bits - 2))
                                   : grid.rule == SymmetricRule::Full
                                       ? code_span(grid) / 2.0F
                                       : static_cast<float>((1 << (grid.bits - 1)) - 1);
    const std::uint32_t symmetry = shared_exponent                          ? 3U
                                   : grid.levels == GridLevels::NormalFloat ? 2U
                                                                            : (grid.symmetric ? 1U : 0U);
    const double flops = (k_element_flops + k_candidate_flops * static_cast<double>(candidates))
                         * static_cast<double>(w.cols());
    for_rows(w.rows(), w.cols(), flops, [&](Index first, Index count) {
        const View weights = rows_view(w, first, count, Access::Read);
        const View scales = rows_view(fitted.scales, first, count, Access::Write);
        const View zeros = rows_view(fitted.zeros, first, count, Access::Write);
        const Push push{u32(count),
                        u32(w.cols()),
                        u32(width),
                        u32(groups),
                        weights.base,
                        scales.base,
                        zeros.base,
                        symmetry,
                        code_span(grid),
                        symmetric_levels,
                        u32(candidates),
                        grid.clip == ClipSearch::Grid ? 1U : 0U,
                        static_cast<float>(grid.clip_steps),
                        static_cast<float>(grid.clip_norm)};
        run(Kernel::FitGrid, {k_fit_lanes}, {weights.binding, scales.binding, zeros.binding}, push,
            static_cast<std::uint64_t>(count * groups), flops * static_cast<double>(count));
    });
    return fitted;
}

/// (scale, lowest code or minimum) of every row and group, from element `first` of `packed` on.
void VulkanBackend::pack_grid(const GridBuffers& grid, const std::shared_ptr<DeviceRange>& packed,
                              Index first)
{
    struct Push {
        std::uint32_t count, base_grid;
        float lowest, sign;
    };
    const float lowest = lowest_code(grid.grid, 0.0F);
    const float sign =
        has_minimum(grid.grid) ? 1.0F : lowest_code(grid.grid, 1.0F) - lowest; // −1: a zero point
    // Two floats leave for each that comes: half a binding's worth at a time.
    const Index step = std::max<Index>(64, static_cast<Index>(binding_limit_ / 16) / 64 * 64);
    const Index total = grid.scales.size();
    for (Index start = 0; start < total; start += step) {
        const Index count = std::min(step, total - start);
        const View scales = view(range_of(grid.scales), start, count, Access::Read);
        const View zeros = view(range_of(grid.zeros), start, count, Access::Read);
        const View pairs = view(packed, first + 2 * start, 2 * count, Access::Write);
        run(Kernel::PackGrid, {}, {scales.binding, zeros.binding, pairs.binding},
            Push{u32(count), pairs.base, lowest, sign}, flat_groups(count),
            k_element_flops * static_cast<double>(count));
    }
}

RoundedBuffers VulkanBackend::round_nearest(const Buffer& w, const GridBuffers& grid)
{
    require_grid(w, grid, "round_nearest");
    if (!fits({&w, &grid.scales, &grid.zeros}))
        return HostFallbackBackend::round_nearest(w, grid);
    const Index groups = grid.scales.cols();
    const auto packed = new_range(static_cast<VkDeviceSize>(2 * grid.scales.size()) * sizeof(float));
    pack_grid(grid, packed, 0);
    RoundedBuffers rounded{new_buffer(w.rows(), w.cols()), new_buffer(w.rows(), w.cols())};
    struct Push {
        std::uint32_t count, cols, width, groups;
        std::uint32_t base_w, base_grid, base_codes, base_values;
        LevelsPush levels;
    };
    const LevelsPush levels = levels_of(grid.grid);
    const double flops = k_element_flops * static_cast<double>(w.cols());
    for_rows(w.rows(), std::max(w.cols(), 2 * groups), flops, [&](Index first, Index count) {
        const View weights = rows_view(w, first, count, Access::Read);
        const View pairs = view(packed, first * 2 * groups, count * 2 * groups, Access::Read);
        const View codes = rows_view(rounded.codes, first, count, Access::Write);
        const View values = rows_view(rounded.values, first, count, Access::Write);
        const Index elements = count * w.cols();
        const Push push{u32(elements), u32(w.cols()), u32(grid.grid.group_width(w.cols())),
                        u32(groups),   weights.base,  pairs.base,
                        codes.base,    values.base,   levels};
        run(Kernel::RoundNearest, {}, {weights.binding, pairs.binding, codes.binding, values.binding}, push,
            flat_groups(elements), flops * static_cast<double>(count));
    });
    return rounded;
}

/// What the panels of one call share. targets become codes, errors start as the weights (descent: targets are
/// codes).
struct VulkanBackend::FeedbackTask {
    Buffer targets;
    Buffer errors;
    const Buffer& feedback;            ///< descent: H
    std::shared_ptr<DeviceRange> grid; ///< group of every column, then pairs
    Index groups = 0;
    LevelsPush levels{};
};

/// The errors of all columns before a panel reach its targets through the feedback matrix.
void VulkanBackend::targets_of_panel(const Buffer& errors, const Buffer& feedback, Index start, Index count,
                                     Buffer& targets)
{
    const Index cols = targets.cols();
    if (start > 0)
        product({{range_of(errors), 0, cols},
                 {range_of(feedback), start, cols},
                 {range_of(targets), start, cols},
                 Transpose::No,
                 Transpose::No,
                 targets.rows(),
                 count,
                 start,
                 1.0F,
                 1.0F});
}

void VulkanBackend::feedback_panel(const FeedbackTask& task, Index start, Index count)
{
    struct Push {
        std::uint32_t rows, cols, start, count, groups;
        std::uint32_t base_targets, base_weights, base_feedback, base_pairs;
        LevelsPush levels;
    };
    const Index rows = task.targets.rows();
    const Index cols = task.targets.cols();
    Buffer panel_targets = task.targets;
    targets_of_panel(task.errors, task.feedback, start, count, panel_targets);
    const double flops = static_cast<double>(count * count) + 16.0 * static_cast<double>(count); // of a row
    for_rows(rows, cols, flops, [&](Index first, Index part) {
        const View targets = rows_view(task.targets, first, part, Access::ReadWrite);
        const View errors = rows_view(task.errors, first, part, Access::ReadWrite);
        const View feedback = rows_view(task.feedback, start, count, Access::Read);
        const Index pairs = cols + first * 2 * task.groups;
        const Push push{u32(part),    u32(cols),   u32(start),    u32(count), u32(task.groups),
                        targets.base, errors.base, feedback.base, u32(pairs), task.levels};
        run(Kernel::RoundFeedback, {k_panel_rows, u32(k_panel)},
            {targets.binding, errors.binding, feedback.binding, whole(task.grid, Access::Read).binding}, push,
            static_cast<std::uint64_t>((part + k_panel_rows - 1) / k_panel_rows),
            flops * static_cast<double>(part));
    });
}

Buffer VulkanBackend::grid_values(const FeedbackTask& task)
{
    struct Push {
        std::uint32_t count, cols, groups, base_codes, base_pairs, base_values;
        LevelsPush levels;
    };
    Buffer values = new_buffer(task.targets.rows(), task.targets.cols());
    const Index cols = values.cols();
    const double flops = k_element_flops * static_cast<double>(cols);
    for_rows(values.rows(), cols, flops, [&](Index first, Index count) {
        const View codes = rows_view(task.targets, first, count, Access::Read);
        const View to = rows_view(values, first, count, Access::Write);
        const Index elements = count * cols;
        const Push push{
            u32(elements), u32(cols),  u32(task.groups), codes.base, u32(cols + first * 2 * task.groups),
            to.base,       task.levels};
        run(Kernel::GridValues, {}, {codes.binding, whole(task.grid, Access::Read).binding, to.binding}, push,
            flat_groups(elements), flops * static_cast<double>(count));
    });
    return values;
}

bool VulkanBackend::grid_fits(const GridBuffers& grid, Index cols) const
{
    const auto bytes = static_cast<VkDeviceSize>(cols + 2 * grid.scales.size()) * sizeof(float);
    return fits({&grid.scales, &grid.zeros}) && bytes <= binding_limit_;
}

std::shared_ptr<DeviceRange> VulkanBackend::mapped_grid(const GridBuffers& grid, Index cols,
                                                        std::span<const Index> group_column)
{
    const Index width = grid.grid.group_width(cols);
    Vector column_groups(cols);
    for (Index k = 0; k < cols; ++k) {
        const Index column = group_column.empty() ? k : group_column[static_cast<std::size_t>(k)];
        require(column >= 0 && column < cols, "round_with_feedback",
                "a group column lies outside the matrix");
        column_groups[k] = static_cast<float>(column / width);
    }
    const auto map_bytes = static_cast<VkDeviceSize>(cols) * sizeof(float);
    const auto range =
        new_range(map_bytes + static_cast<VkDeviceSize>(2 * grid.scales.size()) * sizeof(float));
    recorder_->copy(uploaded(column_groups.data(), map_bytes), range, {{0, 0, map_bytes}});
    pack_grid(grid, range, cols);
    return range;
}

RoundedBuffers VulkanBackend::round_with_feedback(const Buffer& w, const Buffer& feedback,
                                                  const GridBuffers& grid,
                                                  std::span<const Index> group_column)
{
    require_grid(w, grid, "round_with_feedback");
    require(feedback.rows() == w.cols() && feedback.cols() == w.cols(), "round_with_feedback",
            "the feedback matrix has another size than the rows");
    require(group_column.empty() || static_cast<Index>(group_column.size()) == w.cols(),
            "round_with_feedback", "one group column per column is needed");
    if (!fits({&w, &feedback}) || !grid_fits(grid, w.cols()) || rows_per_binding(w.cols()) < k_panel)
        return HostFallbackBackend::round_with_feedback(w, feedback, grid, group_column);
    FeedbackTask task{copy(w),
                      copy(w),
                      feedback,
                      mapped_grid(grid, w.cols(), group_column),
                      grid.scales.cols(),
                      levels_of(grid.grid)};
    for (Index start = 0; start < w.cols(); start += k_panel)
        feedback_panel(task, start, std::min(k_panel, w.cols() - start));
    Buffer values = grid_values(task);
    return {std::move(values), std::move(task.targets)};
}

Buffer VulkanBackend::errors_with_slopes(const Buffer& w, const Buffer& values)
{
    Buffer errors = copy(w);
    add_scaled(-1.0, values, 1.0, errors);
    const Index stride = w.cols() + k_panel;
    Buffer wide = new_buffer(w.rows(), stride);
    const auto bytes = [](Index elements) { return static_cast<VkDeviceSize>(elements) * sizeof(float); };
    std::vector<VkBufferCopy> rows;
    rows.reserve(static_cast<std::size_t>(w.rows()));
    for (Index row = 0; row < w.rows(); ++row)
        rows.push_back({bytes(row * w.cols()), bytes(row * stride), bytes(w.cols())});
    recorder_->copy(range_of(errors), range_of(wide), std::move(rows));
    return wide;
}

/// (W − Q)·H of a panel's columns, behind W − Q.
void VulkanBackend::panel_slopes(const Buffer& errors, const Buffer& hessian, Index start, Index count)
{
    const Index cols = hessian.cols();
    product({{range_of(errors), 0, errors.cols()},
             {range_of(hessian), start, cols},
             {range_of(errors), cols, errors.cols()},
             Transpose::No,
             Transpose::No,
             errors.rows(),
             count,
             cols,
             1.0F,
             0.0F});
}

void VulkanBackend::descend_panel(const FeedbackTask& task, Index start, Index count)
{
    struct Push {
        std::uint32_t rows, cols, start, count, groups;
        std::uint32_t base_codes, base_errors, base_hessian, base_pairs;
        LevelsPush levels;
    };
    panel_slopes(task.errors, task.feedback, start, count);
    const Index cols = task.targets.cols();
    const double flops = static_cast<double>(count * count) + 16.0 * static_cast<double>(count); // of a row
    for_rows(task.targets.rows(), task.errors.cols(), flops, [&](Index first, Index part) {
        const View codes = rows_view(task.targets, first, part, Access::ReadWrite);
        const View errors = rows_view(task.errors, first, part, Access::ReadWrite);
        const View hessian = rows_view(task.feedback, start, count, Access::Read);
        const Index pairs = cols + first * 2 * task.groups;
        const Push push{u32(part),  u32(cols),   u32(start),   u32(count), u32(task.groups),
                        codes.base, errors.base, hessian.base, u32(pairs), task.levels};
        run(Kernel::DescendCodes, {k_panel_rows, u32(k_panel)},
            {codes.binding, errors.binding, hessian.binding, whole(task.grid, Access::Read).binding}, push,
            static_cast<std::uint64_t>((part + k_panel_rows - 1) / k_panel_rows),
            flops * static_cast<double>(part));
    });
}

RoundedBuffers VulkanBackend::tune_codes(const Buffer& w, const RoundedBuffers& start,
                                         const GridBuffers& grid, const Buffer& hessian, int passes)
{
    require_grid(w, grid, "tune_codes");
    require(start.codes.rows() == w.rows() && start.codes.cols() == w.cols(), "tune_codes",
            "codes have another shape");
    require(hessian.rows() == w.cols() && hessian.cols() == w.cols(), "tune_codes",
            "the Hessian has another size than the rows");
    if (!fits({&w, &start.codes}) || !grid_fits(grid, w.cols())
        || rows_per_binding(w.cols() + k_panel) < k_panel)
        return HostFallbackBackend::tune_codes(w, start, grid, hessian, passes);
    const Buffer metric =
        hessian.precision() == Precision::Float32 ? hessian : convert(hessian, Precision::Float32);
    FeedbackTask task{copy(start.codes),   {}, metric, mapped_grid(grid, w.cols(), {}), grid.scales.cols(),
                      levels_of(grid.grid)};
    Buffer values = grid_values(task);
    for (int pass = 0; pass < passes; ++pass) {
        task.errors = errors_with_slopes(w, values);
        for (Index first = 0; first < w.cols(); first += k_panel)
            descend_panel(task, first, std::min(k_panel, w.cols() - first));
        values = grid_values(task);
    }
    return {std::move(values), std::move(task.targets)};
}

} // namespace rankscope::gpu
