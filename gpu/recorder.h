// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/allocator.h"
#include "gpu/kernel_timer.h"
#include "gpu/pipelines.h"

#include <deque>

namespace rankscope::gpu {

enum class Access : std::uint8_t { Read = 1, Write = 2, ReadWrite = 3 };

/// A part of a range that a kernel sees as one storage buffer.
struct Binding {
    std::shared_ptr<DeviceRange> range;
    VkDeviceSize offset = 0; ///< from the range's start, a multiple of k_range_alignment
    VkDeviceSize size = 0;
    Access access = Access::Read;
};

struct Dispatch {
    Kernel kernel;
    std::span<const std::uint32_t> constants;
    std::span<const Binding> bindings;
    std::span<const std::byte> push;
    std::uint32_t groups[3];
    double flops; ///< for cutting submits: an estimate where memory is the limit
};

/// The one lane to the device's queue. Commands are recorded by any thread, in the order of the calls, with a
/// barrier wherever one touches what an earlier one wrote (or writes what it read), and are submitted when
/// they are estimated to take about 50 ms or when somebody needs a result. Ranges in use are kept alive until
/// the device is done with them. Throws BackendFailure.
class Recorder {
public:
    Recorder(std::shared_ptr<Device> device, std::shared_ptr<Pipelines> pipelines);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    void dispatch(const Dispatch& dispatch);
    /// Copies parts; offsets count from the ranges' starts.
    void copy(const std::shared_ptr<DeviceRange>& source, const std::shared_ptr<DeviceRange>& target,
              std::vector<VkBufferCopy> parts);
    /// Zeros; bytes a multiple of 4.
    void clear(const std::shared_ptr<DeviceRange>& target, VkDeviceSize bytes);
    /// Submits what is recorded and waits until the device has done all of it.
    void finish();
    /// Submits what is recorded; what wait_until waits for. 0: nothing was ever recorded.
    std::uint64_t flush();
    void wait_until(std::uint64_t value);

    /// Starts to measure kernels, from zero, or stops; false where the device cannot.
    bool measure(bool on);
    KernelTimes times(); ///< of everything recorded so far: waits for it

    /// What one dispatch may cost so that a submit stays near 50 ms.
    double flops_per_submit() const { return flops_per_submit_; }

private:
    struct Frame {
        VkCommandPool command_pool = VK_NULL_HANDLE;
        VkCommandBuffer commands = VK_NULL_HANDLE;
        VkDescriptorPool descriptors = VK_NULL_HANDLE;
        std::uint64_t value = 0; ///< timeline value that says it is done; 0: free
        std::vector<std::shared_ptr<DeviceRange>> in_use;
    };
    struct Touched {
        const DeviceRange* range;
        unsigned access;
    };

    void create_frame(Frame& frame);
    void destroy();
    Frame& recording(double flops);
    void begin(Frame& frame);
    void note(Frame& frame, const TimedWork& work);
    void release(Frame& frame);
    void order(std::span<const Binding> touched);
    void barrier(VkCommandBuffer commands);
    VkDescriptorSet descriptor_set(Frame& frame, const Pipeline& pipeline, std::span<const Binding> bindings);
    std::uint64_t submit();
    void wait(std::uint64_t value);
    void retire(std::uint64_t done);

    static constexpr std::size_t k_frames = 3;

    std::shared_ptr<Device> device_;
    std::shared_ptr<Pipelines> pipelines_;
    double flops_per_submit_ = 0.0;
    mutable std::mutex mutex_;
    KernelTimer timer_;
    VkSemaphore timeline_ = VK_NULL_HANDLE;
    std::uint64_t last_value_ = 0;
    std::array<Frame, k_frames> frames_;
    Frame* current_ = nullptr;
    std::vector<Touched> touched_; ///< since the last barrier
    double recorded_flops_ = 0.0;
    VkDeviceSize recorded_bytes_ = 0;
    std::uint32_t recorded_commands_ = 0;
};

} // namespace rankscope::gpu
