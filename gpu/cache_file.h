// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/device.h"

#include <filesystem>
#include <string_view>

namespace rankscope::gpu {

/// Where something is kept for this device with this driver: another driver, or another version of it, has
/// another name. Under $XDG_CACHE_HOME/rankscope or ~/.cache/rankscope; empty where there is neither.
std::filesystem::path cache_file(const PhysicalDevice& device, std::string_view what,
                                 std::string_view extension);
/// Part of the name, and of what is checked.
std::uint32_t device_name_hash(const PhysicalDevice& device);

} // namespace rankscope::gpu
