// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/cache_file.h"

#include "core/base/random.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

namespace rankscope::gpu {

std::uint32_t device_name_hash(const PhysicalDevice& device)
{
    return static_cast<std::uint32_t>(stable_hash(device.info.name));
}

std::filesystem::path cache_file(const PhysicalDevice& device, std::string_view what,
                                 std::string_view extension)
{
    std::filesystem::path folder;
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
        folder = cache;
    else if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/')
        folder = std::filesystem::path(home) / ".cache";
    else
        return {};
    std::string uuid;
    for (const std::uint8_t byte : device.driver_uuid)
        uuid += fmt::format("{:02x}", byte);
    return folder / "rankscope"
           / fmt::format("{}-{}-{:08x}-{:08x}.{}", what, uuid, device.driver_version,
                         device_name_hash(device), extension);
}

} // namespace rankscope::gpu
