// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/device.h"
#include "gpu/kernels/registry.h"

#include <chrono>
#include <span>

namespace rankscope::gpu {

/// A command of a submit as the timer sees it.
struct TimedWork {
    std::size_t label = 0; ///< a kernel, or k_copy_label, k_fill_label
    double flops = 0.0;
    double bytes = 0.0;
};
inline constexpr auto k_copy_label = static_cast<std::size_t>(Kernel::Count);
inline constexpr std::size_t k_fill_label = k_copy_label + 1;

/// How long the device takes for the commands of each kernel, by its own timestamps. A command counts from
/// the end of the one recorded before it to its own end: commands that overlap are never counted twice, and
/// the times of all add up to the time for which the device was busy. Off until enabled; the owner serializes
/// the calls.
class KernelTimer {
public:
    KernelTimer(std::shared_ptr<Device> device, std::size_t frames, std::uint32_t commands_per_frame);
    ~KernelTimer();
    KernelTimer(const KernelTimer&) = delete;
    KernelTimer& operator=(const KernelTimer&) = delete;

    /// Starts at zero, or stops. False where the queue has no timestamps. Throws BackendFailure.
    bool enable(bool on);
    /// A frame's commands begin: the first timestamp.
    void begin(std::size_t frame, VkCommandBuffer commands);
    /// After every command of the frame.
    void note(std::size_t frame, VkCommandBuffer commands, const TimedWork& work);
    /// The device is done with the frame: adds its times.
    void collect(std::size_t frame);
    /// What was collected, the longest first.
    KernelTimes times() const;

private:
    struct Frame {
        VkQueryPool pool = VK_NULL_HANDLE;
        bool stamped = false; ///< begin() was called while enabled
        std::vector<TimedWork> works;
    };
    struct Total {
        std::uint64_t calls = 0;
        double seconds = 0.0, flops = 0.0, bytes = 0.0;
    };
    void create_pools();

    std::shared_ptr<Device> device_;
    std::uint32_t queries_;
    bool on_ = false;
    std::vector<Frame> frames_;
    std::vector<Total> totals_;
    std::chrono::steady_clock::time_point start_{};
};

} // namespace rankscope::gpu
