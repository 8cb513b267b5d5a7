// SPDX-License-Identifier: GPL-3.0-or-later
// Which tiling of products is fastest here: measured, not guessed.
#include "core/base/random.h"
#include "gpu/operations.h"

#include <algorithm>

namespace rankscope::gpu {

namespace {

constexpr int k_repeats = 5; // the best one counts: clocks rise, and other programs share the device

} // namespace

std::vector<TilingRate> VulkanBackend::tune()
{
    const DevicePeak most = peak();
    const Index side = device_->physical().info.type == DeviceType::Software ? 192 : 2048;
    const RandomStream random(1, "tune");
    Matrix matrix(side, side);
    for (Index i = 0; i < matrix.size(); ++i)
        matrix.data()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    const Buffer a = upload(matrix);
    Buffer c = new_buffer(side, side);
    std::vector<TilingRate> rates;
    Tiling best = tiling_;
    double best_rate = 0.0;
    for (const Tiling& tiling : all_tilings()) {
        if (!tiling_fits(tiling, device_->physical()))
            continue;
        tiling_ = tiling;
        gemm(1.0, a, Transpose::No, a, Transpose::Yes, 0.0, c); // compiles
        double rate = 0.0;
        for (int repeat = 0; repeat < k_repeats; ++repeat) {
            (void)measure(true);
            gemm(1.0, a, Transpose::No, a, Transpose::Yes, 0.0, c);
            const KernelTimes measured = times();
            if (!measured.kernels.empty())
                rate = std::max(rate, measured.kernels.front().flops_per_second());
        }
        rates.push_back({tiling.name(), rate, rate / most.flops_per_second, false});
        if (rate > best_rate) {
            best_rate = rate;
            best = tiling;
        }
    }
    tiling_ = best;
    (void)measure(false);
    for (TilingRate& rate : rates)
        rate.chosen = rate.tiling == best.name();
    if (auto kept = write_tiling(device_->physical(), best); !kept)
        throw BackendFailure(kept.error());
    return rates;
}

} // namespace rankscope::gpu
