// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/failure.h"

#include <fmt/format.h>

namespace rankscope::gpu {

namespace {

std::string_view reason_of(VkResult result)
{
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "the machine is out of memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL:
        return "the device is out of memory";
    case VK_ERROR_DEVICE_LOST:
        return "the driver reports that the device was lost";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "the driver could not be initialized";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "the driver has no room for another object";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "no compatible driver is installed";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT:
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "the driver lacks something it promised";
    default:
        return "the driver refused";
    }
}

} // namespace

Error vulkan_error(VkResult result, std::string_view what)
{
    const std::string message =
        fmt::format("could not {} ({}, Vulkan result {})", what, reason_of(result), static_cast<int>(result));
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_TOO_MANY_OBJECTS:
        return {ErrorKind::NoSpace, message, "Vulkan",
                "Close other programs that use the device, run fewer layers at a time, or use --backend cpu"};
    default:
        return {ErrorKind::NoDevice, message, "Vulkan", "Try again with --backend cpu"};
    }
}

} // namespace rankscope::gpu
