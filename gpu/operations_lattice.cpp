// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/operations.h"

namespace rankscope::gpu {

namespace {

constexpr double k_point_flops = 900.0; // of a search for the nearest point

} // namespace

/// What the panels of one call share. A sweep's targets become values and its errors start as the weights; a
/// descent begins with values, and `metric` is H.
struct VulkanBackend::LatticeTask {
    Buffer values;
    Buffer errors;
    Buffer codes;
    const Buffer& metric;
    Index stages = 1;
    float scale = 1.0F;
};

/// Whole blocks of a sweep, PANEL columns at most.
struct VulkanBackend::LatticePanel {
    Index start = 0, count = 0;
    Index first_block = 0, blocks = 0;
    Index short_block = k_panel; ///< in the panel; none: beyond it
    Index short_width = 0;
};

void VulkanBackend::lattice_panel(const LatticeTask& task, const LatticePanel& panel)
{
    struct Push {
        std::uint32_t rows, cols, start, count;
        std::uint32_t blocks, short_block, short_width;
        std::uint32_t stages, code_cols, first_code;
        std::uint32_t base_targets, base_weights, base_feedback, base_codes;
        float scale;
    };
    Buffer targets = task.values;
    targets_of_panel(task.errors, task.metric, panel.start, panel.count, targets);
    const double flops = static_cast<double>(panel.count * panel.count)
                         + k_point_flops * static_cast<double>(panel.blocks * task.stages);
    for_rows(targets.rows(), targets.cols(), flops, [&](Index first, Index part) {
        const View values = rows_view(targets, first, part, Access::ReadWrite);
        const View errors = rows_view(task.errors, first, part, Access::ReadWrite);
        const View feedback = rows_view(task.metric, panel.start, panel.count, Access::Read);
        const View codes = rows_view(task.codes, first, part, Access::Write);
        const Push push{u32(part),
                        u32(targets.cols()),
                        u32(panel.start),
                        u32(panel.count),
                        u32(panel.blocks),
                        u32(panel.short_block),
                        u32(panel.short_width),
                        u32(task.stages),
                        u32(task.codes.cols()),
                        u32(panel.first_block * task.stages),
                        values.base,
                        errors.base,
                        feedback.base,
                        codes.base,
                        task.scale};
        run(Kernel::LatticeFeedback, {k_panel_rows, u32(k_panel)},
            {values.binding, errors.binding, feedback.binding, codes.binding}, push,
            static_cast<std::uint64_t>((part + k_panel_rows - 1) / k_panel_rows),
            flops * static_cast<double>(part));
    });
}

LatticeBuffers VulkanBackend::round_lattice(const Buffer& w, const LatticeSweep& sweep)
{
    if (const char* broken = broken_contract(w, sweep))
        require(false, "round_lattice", broken);
    if (!fits({&w, &sweep.feedback}) || rows_per_binding(w.cols()) < k_panel)
        return HostFallbackBackend::round_lattice(w, sweep);
    const auto blocks = static_cast<Index>(sweep.starts.size()) - 1;
    const Index stages = lattice_stages(sweep.bits);
    LatticeTask task{copy(w),        copy(w), new_buffer(w.rows(), blocks * stages),
                     sweep.feedback, stages,  sweep.scale};
    const auto start_of = [&](Index block) { return sweep.starts[static_cast<std::size_t>(block)]; };
    LatticePanel panel;
    for (Index block = 0; block < blocks; ++block) {
        const Index width = start_of(block + 1) - start_of(block);
        if (panel.count + width > k_panel) {
            lattice_panel(task, panel);
            panel = {.start = start_of(block), .first_block = block};
        }
        if (width < k_lattice_width) {
            panel.short_block = panel.blocks;
            panel.short_width = width;
        }
        panel.count += width;
        ++panel.blocks;
    }
    lattice_panel(task, panel);
    return {std::move(task.values), std::move(task.codes)};
}

void VulkanBackend::lattice_descent_panel(const LatticeTask& task, Index start, Index count)
{
    struct Push {
        std::uint32_t rows, cols, start, count;
        std::uint32_t stages, code_cols;
        std::uint32_t base_values, base_errors, base_hessian, base_codes;
        float scale;
    };
    panel_slopes(task.errors, task.metric, start, count);
    const Index blocks = (count + k_lattice_width - 1) / k_lattice_width;
    const double flops =
        static_cast<double>(count * count) + k_point_flops * static_cast<double>((blocks + 1) * task.stages);
    for_rows(task.values.rows(), task.errors.cols(), flops, [&](Index first, Index part) {
        const View values = rows_view(task.values, first, part, Access::ReadWrite);
        const View errors = rows_view(task.errors, first, part, Access::ReadWrite);
        const View hessian = rows_view(task.metric, start, count, Access::Read);
        const View codes = rows_view(task.codes, first, part, Access::Write);
        const Push push{u32(part),        u32(task.values.cols()),
                        u32(start),       u32(count),
                        u32(task.stages), u32(task.codes.cols()),
                        values.base,      errors.base,
                        hessian.base,     codes.base,
                        task.scale};
        run(Kernel::LatticeDescent, {k_panel_rows, u32(k_panel)},
            {values.binding, errors.binding, hessian.binding, codes.binding}, push,
            static_cast<std::uint64_t>((part + k_panel_rows - 1) / k_panel_rows),
            flops * static_cast<double>(part));
    });
}

LatticeBuffers VulkanBackend::tune_lattice(const Buffer& w, const LatticeBuffers& start,
                                           const LatticeDescent& descent)
{
    if (const char* broken = broken_contract(w, start, descent))
        require(false, "tune_lattice", broken);
    if (!fits({&w, &start.values, &start.codes}) || rows_per_binding(w.cols() + k_panel) < k_panel)
        return HostFallbackBackend::tune_lattice(w, start, descent);
    const Buffer metric = descent.hessian.precision() == Precision::Float32
                              ? descent.hessian
                              : convert(descent.hessian, Precision::Float32);
    LatticeTask task{copy(start.values),           {},           copy(start.codes), metric,
                     lattice_stages(descent.bits), descent.scale};
    for (int pass = 0; pass < descent.passes; ++pass) {
        task.errors = errors_with_slopes(w, task.values);
        for (Index first = 0; first < w.cols(); first += k_panel)
            lattice_descent_panel(task, first, std::min(k_panel, w.cols() - first));
    }
    return {std::move(task.values), std::move(task.codes)};
}

} // namespace rankscope::gpu
