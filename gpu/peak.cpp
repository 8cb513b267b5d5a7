// SPDX-License-Identifier: GPL-3.0-or-later
// What a device can do at most, against which its kernels are held.
#include "gpu/operations.h"

#include <algorithm>

namespace rankscope::gpu {

namespace {

constexpr double k_flops_per_round = 64.0; // of a thread of peak.comp
constexpr std::uint32_t k_most_rounds = 4096;
constexpr int k_dispatches = 8; // of a batch: what is between them counts too
constexpr int k_batches = 5;    // the best one counts: clocks rise, and other programs share the device

const KernelTime* find_kernel(const KernelTimes& times, std::string_view name)
{
    const auto found = std::find_if(times.kernels.begin(), times.kernels.end(),
                                    [&](const KernelTime& kernel) { return kernel.kernel == name; });
    return found == times.kernels.end() ? nullptr : &*found;
}

} // namespace

DevicePeak VulkanBackend::peak()
{
    const bool software = device_->physical().info.type == DeviceType::Software;
    const std::uint32_t groups = software ? 64 : 2048;
    const double flops_per_round = k_flops_per_round * static_cast<double>(groups) * lanes_;
    const auto rounds = static_cast<std::uint32_t>(
        std::clamp(recorder_->flops_per_submit() / flops_per_round, 1.0, static_cast<double>(k_most_rounds)));
    const auto sink = new_range(static_cast<VkDeviceSize>(groups) * lanes_ * sizeof(float));
    const Index side = software ? 1024 : 4096;
    const Buffer x = allocate(side, side, Precision::Float32);
    Buffer y = allocate(side, side, Precision::Float32);
    struct Push {
        std::uint32_t rounds;
        float factor, addend;
    };

    DevicePeak best;
    for (int batch = 0; batch < k_batches; ++batch) {
        (void)measure(true);
        for (int i = 0; i < k_dispatches; ++i) {
            run(Kernel::Peak, {lanes_}, {whole(sink, Access::Write).binding}, Push{rounds, 0.999F, 0.001F},
                groups, flops_per_round * static_cast<double>(rounds));
            add_scaled(1.0, x, 1.0, y);
        }
        const KernelTimes measured = times();
        if (const KernelTime* kernel = find_kernel(measured, "peak"); kernel != nullptr)
            best.flops_per_second = std::max(best.flops_per_second, kernel->flops_per_second());
        if (const KernelTime* kernel = find_kernel(measured, "add_scaled"); kernel != nullptr)
            best.bytes_per_second = std::max(best.bytes_per_second, kernel->bytes_per_second());
    }
    (void)measure(true); // from zero again
    return best;
}

} // namespace rankscope::gpu
