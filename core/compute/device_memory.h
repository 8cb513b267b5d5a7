// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <cstdint>
#include <optional>

namespace rankscope {

/// What a backend is besides, whose float32 matrices lie in memory of their own and not in the host's.
class DeviceMemory {
public:
    virtual ~DeviceMemory() = default;
    /// Bytes that matrices may still take.
    virtual std::uint64_t free_bytes() const = 0;
};

/// Of a backend with memory of its own; nothing for one that computes in the host's.
inline std::optional<std::uint64_t> free_device_bytes(const Backend& backend)
{
    const auto* memory = dynamic_cast<const DeviceMemory*>(&backend);
    return memory != nullptr ? std::optional(memory->free_bytes()) : std::nullopt;
}

} // namespace rankscope
