// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/buffer.h"
#include "gpu/device.h"

#include <map>
#include <mutex>

namespace rankscope::gpu {

/// Where a range of memory lies and who touches it.
enum class MemoryUse : std::uint8_t {
    Device,   ///< matrices; mapped too where device memory is fast for the host
    Upload,   ///< written by the host, read by the device
    Readback, ///< written by the device, read by the host
};

class Allocator;

/// A range of device memory, given back when destroyed. Keeps its allocator, and with it the device, alive.
class DeviceRange {
public:
    ~DeviceRange();
    DeviceRange(const DeviceRange&) = delete;
    DeviceRange& operator=(const DeviceRange&) = delete;

    VkBuffer buffer() const { return buffer_; }
    VkDeviceSize offset() const { return offset_; } ///< a multiple of k_range_alignment
    VkDeviceSize size() const { return size_; }
    /// The range in host memory, nullptr when the host cannot see it.
    void* mapped() const { return mapped_; }

private:
    friend class Allocator;
    DeviceRange() = default;

    std::shared_ptr<Allocator> allocator_;
    struct Block* block_ = nullptr;
    VkBuffer buffer_ = VK_NULL_HANDLE;
    VkDeviceSize offset_ = 0;
    VkDeviceSize size_ = 0;
    void* mapped_ = nullptr;
};

/// Offsets of storage bindings: the largest alignment that Vulkan lets a device ask for.
inline constexpr VkDeviceSize k_range_alignment = 256;

/// Gives out ranges of Vulkan buffers: large ones get an allocation of their own, small ones share blocks,
/// because a device may allow no more than 4096 allocations. Thread-safe.
class Allocator : public std::enable_shared_from_this<Allocator> {
public:
    struct Options {
        bool force_staging = false; ///< device memory is never mapped, as on a card with memory of its own
        VkDeviceSize limit = 0;     ///< bytes that may be allocated at most; 0: what the device has
        bool apart = false;         ///< a buffer for every range: validation knows buffers, not ranges
    };
    static std::shared_ptr<Allocator> create(std::shared_ptr<Device> device, const Options& options);
    ~Allocator();
    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;

    /// nullptr when the device has no room. Throws BackendFailure on any other failure.
    std::shared_ptr<DeviceRange> try_allocate(VkDeviceSize bytes, MemoryUse use);
    /// The largest single range; above it try_allocate gives nullptr.
    VkDeviceSize largest_range() const { return device_->physical().max_allocation; }
    bool device_memory_mapped() const { return mapped_[0]; }
    std::uint64_t allocated_bytes() const;
    /// What another allocation of device memory may be large; the largest number where nobody says.
    VkDeviceSize room() const;

private:
    friend class DeviceRange;
    Allocator() = default;
    std::uint32_t memory_type(MemoryUse use) const;
    VkDeviceSize room_for(MemoryUse use) const;
    Block* new_block(VkDeviceSize bytes, MemoryUse use, bool shared);
    void destroy_block(Block& block);
    void release(DeviceRange& range);

    std::shared_ptr<Device> device_;
    std::uint32_t types_[3] = {};
    bool mapped_[3] = {};
    mutable std::mutex mutex_;
    std::map<Block*, std::unique_ptr<Block>> blocks_;
    Options options_;
    std::uint64_t allocated_bytes_ = 0;
};

} // namespace rankscope::gpu
