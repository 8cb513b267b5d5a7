// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <exception>
#include <string_view>

namespace rankscope {

/// Thrown by Monitor::throw_if_cancelled; caught only where a job starts, where it becomes an Error value.
class Cancelled : public std::exception {
public:
    const char* what() const noexcept override { return "cancelled"; }
};

/// How long work speaks to whoever waits for it. Long functions call throw_if_cancelled() at least every
/// 100 ms of work. Implementations must be callable from any thread and cheap; the default is silence.
class Monitor {
public:
    virtual ~Monitor() = default;
    /// `done` of `total` units of `what` ("layer", "refine") are finished. total = 0: unknown.
    virtual void report(std::uint64_t done, std::uint64_t total, std::string_view what);
    /// Something the person should know although the work goes on (a dead channel, a damping raised).
    virtual void warn(std::string_view sentence);
    virtual bool cancelled() const { return false; }

    void throw_if_cancelled() const
    {
        if (cancelled())
            throw Cancelled{};
    }
};

/// A monitor that says nothing and is never cancelled; shared, for tests and short work.
Monitor& silent_monitor();

} // namespace rankscope
