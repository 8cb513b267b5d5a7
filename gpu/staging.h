// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "gpu/recorder.h"

#include <array>
#include <functional>

namespace rankscope::gpu {

/// The way of matrices to and from memory that the host cannot see: some segments of host memory, taken in
/// turn, so that the host fills (or empties) one while the device copies another. Segments are made when
/// first needed, smaller ones where the device has little room. Thread-safe; throws BackendFailure.
class Staging {
public:
    /// nullptr when there is no room.
    using Allocate = std::function<std::shared_ptr<DeviceRange>(VkDeviceSize bytes, MemoryUse use)>;

    Staging(Recorder& recorder, Allocate allocate) : recorder_(recorder), allocate_(std::move(allocate)) {}

    /// Fills the first bytes of a range.
    void write(const std::shared_ptr<DeviceRange>& target, const void* source, VkDeviceSize bytes);
    /// Waits for what is recorded.
    void read(const std::shared_ptr<DeviceRange>& source, void* target, VkDeviceSize bytes);

private:
    struct Segment {
        std::shared_ptr<DeviceRange> range;
        std::uint64_t value = 0; ///< of the submit that uses it
    };
    struct Ring {
        MemoryUse use;
        VkDeviceSize segment_bytes = 0; ///< 0: not made yet
        std::array<Segment, 3> segments;
        std::size_t next = 0;
    };
    void prepare(Ring& ring);

    Recorder& recorder_;
    Allocate allocate_;
    std::mutex upload_mutex_, readback_mutex_;
    Ring upload_{MemoryUse::Upload, 0, {}, 0};
    Ring readback_{MemoryUse::Readback, 0, {}, 0};
};

} // namespace rankscope::gpu
