// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>

namespace rankscope::detail {

struct GuardedRange;

/// Keeps the program alive when a mapped file is cut off, or its drive fails, while it is read: the system
/// then answers a read with SIGBUS, from whichever thread reads. The first guard installs a handler that, for
/// faults inside a guarded range only, puts zeros in the place of everything from there to the range's end
/// and marks the range as damaged; the reader goes on and whoever asked for the data asks damaged()
/// afterwards. All other faults go where they went before. Reads that do not fail cost nothing.
class FaultGuard {
public:
    /// A mapping of `size` > 0 bytes at `data`; give the guard up before it is unmapped.
    FaultGuard(const std::byte* data, std::size_t size);
    FaultGuard(const FaultGuard&) = delete;
    FaultGuard& operator=(const FaultGuard&) = delete;
    ~FaultGuard();

    bool damaged() const;

private:
    GuardedRange* range_;
};

} // namespace rankscope::detail
