// SPDX-License-Identifier: GPL-3.0-or-later
#include "gpu/staging.h"

#include "gpu/failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace rankscope::gpu {

namespace {

constexpr VkDeviceSize k_largest_segment = VkDeviceSize{8} << 20;
constexpr VkDeviceSize k_smallest_segment = VkDeviceSize{64} << 10;

} // namespace

/// Three segments, each half as large until there is room for all.
void Staging::prepare(Ring& ring)
{
    for (VkDeviceSize bytes = k_largest_segment; ring.segment_bytes == 0; bytes /= 2) {
        if (bytes < k_smallest_segment)
            throw BackendFailure({ErrorKind::NoSpace,
                                  "the machine has no room to exchange matrices with the device", "Vulkan",
                                  "Close other programs that use the device, or use --backend cpu"});
        for (Segment& segment : ring.segments)
            segment = {allocate_(bytes, ring.use), 0};
        if (std::all_of(ring.segments.begin(), ring.segments.end(),
                        [](const Segment& segment) { return segment.range != nullptr; }))
            ring.segment_bytes = bytes;
    }
}

void Staging::write(const std::shared_ptr<DeviceRange>& target, const void* source, VkDeviceSize bytes)
{
    const std::lock_guard lock(upload_mutex_);
    prepare(upload_);
    const VkDeviceSize step = upload_.segment_bytes;
    for (VkDeviceSize done = 0; done < bytes; done += step) {
        const VkDeviceSize part = std::min(step, bytes - done);
        Segment& segment = upload_.segments[upload_.next++ % upload_.segments.size()];
        recorder_.wait_until(segment.value);
        std::memcpy(segment.range->mapped(), static_cast<const std::byte*>(source) + done, part);
        recorder_.copy(segment.range, target, {{0, done, part}});
        segment.value = recorder_.flush();
    }
}

void Staging::read(const std::shared_ptr<DeviceRange>& source, void* target, VkDeviceSize bytes)
{
    const std::lock_guard lock(readback_mutex_);
    prepare(readback_);
    const VkDeviceSize step = readback_.segment_bytes;
    const VkDeviceSize ahead = step * (readback_.segments.size() - 1); // what the device may copy meanwhile
    const auto segment_of = [&](VkDeviceSize offset) -> Segment& {
        return readback_.segments[static_cast<std::size_t>(offset / step) % readback_.segments.size()];
    };
    const auto ask = [&](VkDeviceSize offset) {
        Segment& segment = segment_of(offset);
        recorder_.copy(source, segment.range, {{offset, 0, std::min(step, bytes - offset)}});
        segment.value = recorder_.flush();
    };
    for (VkDeviceSize offset = 0; offset < std::min(bytes, ahead); offset += step)
        ask(offset);
    for (VkDeviceSize done = 0; done < bytes; done += step) {
        if (done + ahead < bytes)
            ask(done + ahead);
        const Segment& segment = segment_of(done);
        recorder_.wait_until(segment.value);
        std::memcpy(static_cast<std::byte*>(target) + done, segment.range->mapped(),
                    std::min(step, bytes - done));
    }
}

} // namespace rankscope::gpu
