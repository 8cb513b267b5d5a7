// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/device.h"

#include "gpu/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

namespace rankscope::gpu {

namespace {

constexpr std::uint32_t k_least_invocations = 128; // what Vulkan promises of every device
constexpr std::uint32_t k_least_shared_bytes = 16 * 1024;

DeviceType type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return DeviceType::Discrete;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return DeviceType::Integrated;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return DeviceType::Virtual;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return DeviceType::Software;
    default:
        return DeviceType::Other;
    }
}

int preference(DeviceType type)
{
    switch (type) {
    case DeviceType::Discrete:
        return 0;
    case DeviceType::Integrated:
        return 1;
    case DeviceType::Virtual:
        return 2;
    case DeviceType::Other:
        return 3;
    case DeviceType::Software:
        return 4;
    }
    return 4;
}

std::string version_text(std::uint32_t version)
{
    return fmt::format("{}.{}.{}", VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version),
                       VK_API_VERSION_PATCH(version));
}

struct QueueFamily {
    std::uint32_t index = 0;
    std::uint32_t timestamp_bits = 0;
};

std::optional<QueueFamily> compute_family(VkPhysicalDevice device)
{
    std::uint32_t count = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
    std::vector<VkQueueFamilyProperties> families(count);
    vkGetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
    std::optional<QueueFamily> found;
    for (std::uint32_t family = 0; family < count; ++family) {
        const VkQueueFlags flags = families[family].queueFlags;
        if ((flags & VK_QUEUE_COMPUTE_BIT) == 0)
            continue;
        const QueueFamily candidate{family, families[family].timestampValidBits};
        // A family without graphics leaves the desktop's own queue alone.
        if ((flags & VK_QUEUE_GRAPHICS_BIT) == 0)
            return candidate;
        if (!found)
            found = candidate;
    }
    return found;
}

std::string reason_not_usable(VkPhysicalDevice device, const VkPhysicalDeviceProperties& properties,
                              bool has_compute_queue)
{
    if (properties.apiVersion < VK_API_VERSION_1_2)
        return fmt::format("offers Vulkan {}, 1.2 is needed", version_text(properties.apiVersion));
    if (!has_compute_queue)
        return "has no compute queue";
    VkPhysicalDeviceVulkan12Features features12{};
    features12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    VkPhysicalDeviceFeatures2 features{};
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
    features.pNext = &features12;
    vkGetPhysicalDeviceFeatures2(device, &features);
    if (features12.timelineSemaphore != VK_TRUE)
        return "lacks timeline semaphores";
    if (properties.limits.maxComputeWorkGroupInvocations < k_least_invocations
        || properties.limits.maxComputeSharedMemorySize < k_least_shared_bytes)
        return "its work groups are too small for the kernels";
    return {};
}

bool has_extension(VkPhysicalDevice device, const char* name)
{
    std::uint32_t count = 0;
    if (vkEnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) != VK_SUCCESS)
        return false;
    std::vector<VkExtensionProperties> extensions(count);
    if (vkEnumerateDeviceExtensionProperties(device, nullptr, &count, extensions.data()) < VK_SUCCESS)
        return false;
    return std::any_of(extensions.begin(), extensions.end(), [&](const VkExtensionProperties& extension) {
        return std::strcmp(extension.extensionName, name) == 0;
    });
}

PhysicalDevice describe(VkPhysicalDevice handle)
{
    PhysicalDevice device;
    device.handle = handle;
    VkPhysicalDeviceProperties basic{};
    vkGetPhysicalDeviceProperties(handle, &basic);
    VkPhysicalDeviceDriverProperties driver{};
    driver.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
    VkPhysicalDeviceSubgroupProperties subgroup{};
    subgroup.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES;
    VkPhysicalDeviceMaintenance3Properties maintenance{};
    maintenance.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES;
    VkPhysicalDeviceIDProperties identity{};
    identity.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES;
    if (basic.apiVersion >= VK_API_VERSION_1_2) {
        driver.pNext = &subgroup;
        subgroup.pNext = &maintenance;
        maintenance.pNext = &identity;
        VkPhysicalDeviceProperties2 properties{};
        properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
        properties.pNext = &driver;
        vkGetPhysicalDeviceProperties2(handle, &properties);
    }
    vkGetPhysicalDeviceMemoryProperties(handle, &device.memory);

    const auto family = compute_family(handle);
    device.queue_family = family.value_or(QueueFamily{}).index;
    device.timestamp_bits = family.value_or(QueueFamily{}).timestamp_bits;
    device.limits = basic.limits;
    device.max_allocation = maintenance.maxMemoryAllocationSize;
    device.driver_version = basic.driverVersion;
    device.memory_budget = has_extension(handle, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    std::copy(std::begin(identity.driverUUID), std::end(identity.driverUUID), device.driver_uuid.begin());
    std::copy(std::begin(basic.pipelineCacheUUID), std::end(basic.pipelineCacheUUID),
              device.pipeline_cache_uuid.begin());

    VulkanDevice& info = device.info;
    info.name = basic.deviceName;
    info.type = type_of(basic.deviceType);
    info.driver = driver.driverName[0] != '\0' ? fmt::format("{} {}", driver.driverName, driver.driverInfo)
                                               : fmt::format("driver {}", basic.driverVersion);
    info.api_version = version_text(basic.apiVersion);
    for (std::uint32_t heap = 0; heap < device.memory.memoryHeapCount; ++heap) {
        if ((device.memory.memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) != 0)
            info.memory_bytes =
                std::max<std::uint64_t>(info.memory_bytes, device.memory.memoryHeaps[heap].size);
    }
    info.max_storage_range_bytes = basic.limits.maxStorageBufferRange;
    info.max_workgroup_invocations = basic.limits.maxComputeWorkGroupInvocations;
    info.shared_memory_bytes = basic.limits.maxComputeSharedMemorySize;
    info.subgroup_size = subgroup.subgroupSize;
    info.reason = reason_not_usable(handle, basic, family.has_value());
    info.usable = info.reason.empty();
    return device;
}

} // namespace

Result<std::vector<PhysicalDevice>> enumerate_devices(const Instance& instance)
{
    std::uint32_t count = 0;
    VkResult result = vkEnumeratePhysicalDevices(instance.handle(), &count, nullptr);
    std::vector<VkPhysicalDevice> handles(count);
    if (result == VK_SUCCESS && count > 0)
        result = vkEnumeratePhysicalDevices(instance.handle(), &count, handles.data());
    if (result < VK_SUCCESS)
        return vulkan_error(result, "list the Vulkan devices");
    if (count == 0)
        return Error{ErrorKind::NoDevice,
                     "the installed Vulkan drivers found no device",
                     {},
                     "Check the graphics driver, or compute on the CPU with --backend cpu"};
    handles.resize(count);

    std::vector<PhysicalDevice> devices;
    devices.reserve(count);
    for (const VkPhysicalDevice handle : handles)
        devices.push_back(describe(handle));
    std::stable_sort(devices.begin(), devices.end(), [](const PhysicalDevice& a, const PhysicalDevice& b) {
        return preference(a.info.type) < preference(b.info.type);
    });
    for (std::size_t i = 0; i < devices.size(); ++i)
        devices[i].info.index = static_cast<int>(i);
    return devices;
}

Result<std::shared_ptr<Device>> Device::create(std::shared_ptr<Instance> instance, PhysicalDevice physical)
{
    std::shared_ptr<Device> device(new Device);
    device->instance_ = std::move(instance);
    device->physical_ = std::move(physical);

    const float priority = 0.5F; // the desktop comes first
    VkDeviceQueueCreateInfo queue{};
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueFamilyIndex = device->physical_.queue_family;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    VkPhysicalDeviceVulkan12Features features{};
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    features.timelineSemaphore = VK_TRUE;
    VkDeviceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    info.pNext = &features;
    info.queueCreateInfoCount = 1;
    info.pQueueCreateInfos = &queue;
    const char* const budget = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    info.enabledExtensionCount = device->physical_.memory_budget ? 1 : 0;
    info.ppEnabledExtensionNames = &budget;
    const VkResult result = vkCreateDevice(device->physical_.handle, &info, nullptr, &device->handle_);
    if (result != VK_SUCCESS)
        return vulkan_error(result, "open the device").in(device->physical_.info.name);
    volkLoadDeviceTable(&device->table_, device->handle_);
    device->vk().vkGetDeviceQueue(device->handle_, device->physical_.queue_family, 0, &device->queue_);
    return device;
}

Device::~Device()
{
    if (handle_ == VK_NULL_HANDLE)
        return;
    (void)vk().vkDeviceWaitIdle(handle_);
    vk().vkDestroyDevice(handle_, nullptr);
}

void Device::check(VkResult result, std::string_view what) const
{
    if (result >= VK_SUCCESS)
        return;
    if (result == VK_ERROR_DEVICE_LOST)
        lost_ = true;
    throw BackendFailure(vulkan_error(result, what).in(physical_.info.name));
}

VkDeviceSize Device::memory_room(std::uint32_t memory_type) const
{
    if (!physical_.memory_budget)
        return std::numeric_limits<VkDeviceSize>::max();
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{};
    budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
    VkPhysicalDeviceMemoryProperties2 properties{};
    properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
    properties.pNext = &budget;
    vkGetPhysicalDeviceMemoryProperties2(physical_.handle, &properties);
    const std::uint32_t heap = physical_.memory.memoryTypes[memory_type].heapIndex;
    return budget.heapBudget[heap] - std::min(budget.heapUsage[heap], budget.heapBudget[heap]);
}

void Device::require_alive() const
{
    if (lost_)
        throw BackendFailure(vulkan_error(VK_ERROR_DEVICE_LOST, "use the device").in(physical_.info.name));
}

} // namespace rankscope::gpu
