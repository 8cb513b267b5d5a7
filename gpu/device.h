// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "gpu/faults.h"
#include "gpu/loader.h"
#include "gpu/vulkan_backend.h"

#include <array>
#include <atomic>
#include <memory>
#include <vector>

namespace rankscope::gpu {

/// A device of the machine with what the kernels and the allocator need to know of it.
struct PhysicalDevice {
    VkPhysicalDevice handle = VK_NULL_HANDLE;
    VulkanDevice info;
    VkPhysicalDeviceLimits limits{};
    VkPhysicalDeviceMemoryProperties memory{};
    VkDeviceSize max_allocation = 0;
    std::uint32_t queue_family = 0;
    std::uint32_t timestamp_bits = 0; ///< of the queue's timestamps that count; 0: it has none
    std::array<std::uint8_t, VK_UUID_SIZE> driver_uuid{};
    std::array<std::uint8_t, VK_UUID_SIZE> pipeline_cache_uuid{};
    std::uint32_t driver_version = 0;
    bool memory_budget = false; ///< VK_EXT_memory_budget: the driver says how much room there is
};

/// Devices in the order of --backend vulkan:INDEX: discrete, integrated, virtual, others, software.
Result<std::vector<PhysicalDevice>> enumerate_devices(const Instance& instance);

/// A logical device with one compute queue. Lives as long as any buffer on it. Immutable but for the lost
/// flag and the faults of tests.
class Device {
public:
    /// Errors: NoDevice, NoSpace.
    static Result<std::shared_ptr<Device>> create(std::shared_ptr<Instance> instance,
                                                  PhysicalDevice physical);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    VkDevice handle() const { return handle_; }
    VkQueue queue() const { return queue_; }
    const VolkDeviceTable& vk() const { return table_; }
    const PhysicalDevice& physical() const { return physical_; }

    /// Throws BackendFailure unless `result` is a success; remembers a lost device.
    void check(VkResult result, std::string_view what) const;
    /// Throws if the device was lost: what is asked of it afterwards cannot give right numbers.
    void require_alive() const;
    /// What may still be allocated from the heap of a memory type before the driver would have to move memory out;
    /// the largest number where the driver does not say.
    VkDeviceSize memory_room(std::uint32_t memory_type) const;
    FaultInjector& faults() const { return faults_; }

private:
    Device() = default;

    std::shared_ptr<Instance> instance_;
    PhysicalDevice physical_;
    VkDevice handle_ = VK_NULL_HANDLE;
    VkQueue queue_ = VK_NULL_HANDLE;
    VolkDeviceTable table_{};
    mutable std::atomic<bool> lost_ = false;
    mutable FaultInjector faults_;
};

} // namespace rankscope::gpu
