// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/kernel_timer.h"

#include <algorithm>

namespace rankscope::gpu {

namespace {

std::string label_text(std::size_t label)
{
    if (label == k_copy_label)
        return "copy";
    if (label == k_fill_label)
        return "fill";
    return kernel_info(static_cast<Kernel>(label)).name;
}

} // namespace

KernelTimer::KernelTimer(std::shared_ptr<Device> device, std::size_t frames, std::uint32_t commands_per_frame)
    : device_(std::move(device)), queries_(commands_per_frame + 1), frames_(frames), totals_(k_fill_label + 1)
{}

KernelTimer::~KernelTimer()
{
    for (const Frame& frame : frames_)
        device_->vk().vkDestroyQueryPool(device_->handle(), frame.pool, nullptr);
}

void KernelTimer::create_pools()
{
    VkQueryPoolCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO;
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = queries_;
    for (Frame& frame : frames_) {
        if (frame.pool == VK_NULL_HANDLE)
            device_->check(device_->vk().vkCreateQueryPool(device_->handle(), &info, nullptr, &frame.pool),
                           "prepare the timestamps");
    }
}

bool KernelTimer::enable(bool on)
{
    on_ = false;
    if (!on)
        return true;
    if (device_->physical().timestamp_bits == 0)
        return false;
    create_pools();
    std::fill(totals_.begin(), totals_.end(), Total{});
    start_ = std::chrono::steady_clock::now();
    on_ = true;
    return true;
}

void KernelTimer::begin(std::size_t frame, VkCommandBuffer commands)
{
    Frame& timed = frames_[frame];
    timed.works.clear();
    timed.stamped = on_;
    if (!on_)
        return;
    const auto& vk = device_->vk();
    vk.vkCmdResetQueryPool(commands, timed.pool, 0, queries_);
    vk.vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, timed.pool, 0);
}

void KernelTimer::note(std::size_t frame, VkCommandBuffer commands, const TimedWork& work)
{
    Frame& timed = frames_[frame];
    if (!timed.stamped)
        return;
    timed.works.push_back(work);
    device_->vk().vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, timed.pool,
                                      static_cast<std::uint32_t>(timed.works.size()));
}

void KernelTimer::collect(std::size_t frame)
{
    Frame& timed = frames_[frame];
    if (!timed.stamped)
        return;
    timed.stamped = false;
    std::vector<std::uint64_t> ticks(timed.works.size() + 1);
    const auto bytes = ticks.size() * sizeof(std::uint64_t);
    device_->check(device_->vk().vkGetQueryPoolResults(device_->handle(), timed.pool, 0,
                                                       static_cast<std::uint32_t>(ticks.size()), bytes,
                                                       ticks.data(), sizeof(std::uint64_t),
                                                       VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT),
                   "read the timestamps");
    const PhysicalDevice& physical = device_->physical();
    const std::uint64_t mask =
        physical.timestamp_bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << physical.timestamp_bits) - 1;
    const double seconds_per_tick = 1e-9 * static_cast<double>(physical.limits.timestampPeriod);
    for (std::size_t i = 0; i < timed.works.size(); ++i) {
        const TimedWork& work = timed.works[i];
        Total& total = totals_[work.label];
        ++total.calls;
        total.seconds += seconds_per_tick * static_cast<double>((ticks[i + 1] - ticks[i]) & mask);
        total.flops += work.flops;
        total.bytes += work.bytes;
    }
}

KernelTimes KernelTimer::times() const
{
    KernelTimes times;
    if (start_ == std::chrono::steady_clock::time_point{})
        return times;
    times.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    for (std::size_t label = 0; label < totals_.size(); ++label) {
        const Total& total = totals_[label];
        if (total.calls == 0)
            continue;
        times.busy_seconds += total.seconds;
        times.kernels.push_back(
            {label_text(label), total.calls, total.seconds, 0.0, total.flops, total.bytes});
    }
    for (KernelTime& kernel : times.kernels)
        kernel.share = times.busy_seconds > 0.0 ? kernel.seconds / times.busy_seconds : 0.0;
    std::stable_sort(times.kernels.begin(), times.kernels.end(),
                     [](const KernelTime& a, const KernelTime& b) { return a.seconds > b.seconds; });
    return times;
}

} // namespace rankscope::gpu
