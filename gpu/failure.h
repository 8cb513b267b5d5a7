// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <volk.h>

#include <string_view>

namespace rankscope::gpu {

/// The sentence for a Vulkan call that failed while doing `what` ("allocate 12 MiB").
Error vulkan_error(VkResult result, std::string_view what);

/// Throws BackendFailure unless the call succeeded.
inline void check(VkResult result, std::string_view what)
{
    if (result < VK_SUCCESS)
        throw BackendFailure(vulkan_error(result, what));
}

} // namespace rankscope::gpu
