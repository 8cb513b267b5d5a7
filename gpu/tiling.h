// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/device.h"

#include <optional>
#include <span>
#include <string>

namespace rankscope::gpu {

/// How a work group of gemm and gram computes its tile: x × y threads with micro × micro results each,
/// `depth` terms at a time through shared memory. Every one gives the same bits: terms are added in the same
/// order.
struct Tiling {
    std::uint32_t x, y, micro, depth;

    bool operator==(const Tiling&) const = default;
    std::uint32_t shared_bytes() const { return 4 * depth * ((x * micro + 1) + (y * micro + 1)); }
    std::string name() const; ///< "128x128, 8x8 a thread, 16 deep"
};

/// All that are tried on a device.
std::span<const Tiling> all_tilings();
bool tiling_fits(const Tiling& tiling, const PhysicalDevice& device);
/// Fits every device of so many invocations a group.
Tiling default_tiling(const PhysicalDevice& device);
/// The one that was measured to be best on this device with this driver; none if there is no sound file of
/// it.
std::optional<Tiling> read_tiling(const PhysicalDevice& device);
Status write_tiling(const PhysicalDevice& device, const Tiling& tiling);

} // namespace rankscope::gpu
