// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/tiling.h"

#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "gpu/cache_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace rankscope::gpu {

namespace {

// Few results a thread for devices that are narrow or share little memory, many for those that are held up by
// it. The depth divides 256, after which sums join the total.
constexpr std::array<Tiling, 8> k_tilings{{
    {16, 16, 4, 16},
    {16, 8, 4, 16},
    {8, 8, 4, 16},
    {8, 8, 8, 8},
    {8, 8, 8, 16},
    {16, 16, 4, 32},
    {16, 16, 8, 8},
    {16, 16, 8, 16},
}};

} // namespace

std::string Tiling::name() const
{
    return fmt::format("{}x{}, {}x{} a thread, {} deep", y * micro, x * micro, micro, micro, depth);
}

std::span<const Tiling> all_tilings() { return k_tilings; }

bool tiling_fits(const Tiling& tiling, const PhysicalDevice& device)
{
    const VkPhysicalDeviceLimits& limits = device.limits;
    return tiling.x * tiling.y <= limits.maxComputeWorkGroupInvocations
           && tiling.x <= limits.maxComputeWorkGroupSize[0] && tiling.y <= limits.maxComputeWorkGroupSize[1]
           && tiling.shared_bytes() <= limits.maxComputeSharedMemorySize;
}

Tiling default_tiling(const PhysicalDevice& device)
{
    return tiling_fits(k_tilings[0], device) ? k_tilings[0] : k_tilings[1];
}

std::optional<Tiling> read_tiling(const PhysicalDevice& device)
{
    const std::filesystem::path file = cache_file(device, "tiling", "json");
    if (file.empty())
        return std::nullopt;
    const auto json = Json::read(file);
    if (!json)
        return std::nullopt;
    const std::string name = (*json)["gemm"].string();
    const auto found = std::ranges::find_if(k_tilings, [&](const Tiling& tiling) {
        return tiling.name() == name && tiling_fits(tiling, device);
    });
    return found == k_tilings.end() ? std::nullopt : std::optional(*found);
}

Status write_tiling(const PhysicalDevice& device, const Tiling& tiling)
{
    const std::filesystem::path path = cache_file(device, "tiling", "json");
    if (path.empty())
        return Error{ErrorKind::Io, "there is no folder for what was measured", "HOME",
                     "Set HOME or XDG_CACHE_HOME"};
    Json json;
    json.set("device", device.info.name);
    json.set("driver", device.info.driver);
    json.set("gemm", tiling.name());
    std::error_code ignored;
    std::filesystem::create_directories(path.parent_path(), ignored);
    return write_text_file(path, json.dump(2) + "\n", true);
}

} // namespace rankscope::gpu
