// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <atomic>
#include <cstdint>

namespace rankscope {

/// What shall go wrong with a Vulkan device, for tests. Counted from the moment when it is set; 0: nothing.
struct VulkanFaults {
    std::uint64_t full_at_range = 0;  ///< no room for the n-th range of memory that is asked for
    bool full_ever_after = false;     ///< nor for any later one
    std::uint64_t lost_at_submit = 0; ///< the n-th submit finds the device lost, for good
};
/// Ranges and submits since then.
struct VulkanCounts {
    std::uint64_t ranges = 0;
    std::uint64_t submits = 0;
};
/// Does nothing to another backend.
void inject_faults(Backend& backend, const VulkanFaults& faults);
VulkanCounts counts_since_injection(const Backend& backend);

namespace gpu {

/// Counts what may fail, and says when it is to fail. Thread-safe.
class FaultInjector {
public:
    void set(const VulkanFaults& faults)
    {
        full_at_ = faults.full_at_range;
        ever_after_ = faults.full_ever_after;
        lost_at_ = faults.lost_at_submit;
        ranges_ = 0;
        submits_ = 0;
    }
    VulkanCounts counts() const { return {ranges_, submits_}; }
    bool range_fails()
    {
        const std::uint64_t number = ++ranges_;
        const std::uint64_t at = full_at_;
        return at != 0 && (number == at || (ever_after_ && number > at));
    }
    bool submit_fails()
    {
        const std::uint64_t number = ++submits_;
        return number == lost_at_;
    }

private:
    std::atomic<std::uint64_t> full_at_ = 0, lost_at_ = 0, ranges_ = 0, submits_ = 0;
    std::atomic<bool> ever_after_ = false;
};

} // namespace gpu

} // namespace rankscope
