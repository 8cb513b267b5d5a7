// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace rankscope::test {

/// Keeps what a job says, and can be cancelled: at once or after a number of reports.
class TestMonitor : public Monitor {
public:
    explicit TestMonitor(std::int64_t cancel_after = -1) : cancel_after_(cancel_after) {}

    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override
    {
        const std::lock_guard lock(mutex_);
        ++reports_;
        within_total_ = within_total_ && (total == 0 || done <= total);
        stages_.emplace_back(what);
    }
    void warn(std::string_view sentence) override
    {
        const std::lock_guard lock(mutex_);
        warnings_.emplace_back(sentence);
    }
    bool cancelled() const override { return cancelled_ || (cancel_after_ >= 0 && reports_ > cancel_after_); }
    void cancel() { cancelled_ = true; }

    std::int64_t reports() const { return reports_; }
    bool within_total() const { return within_total_; }
    const std::vector<std::string>& warnings() const { return warnings_; }
    const std::vector<std::string>& stages() const { return stages_; }

private:
    std::int64_t cancel_after_;
    std::atomic<std::int64_t> reports_ = 0;
    std::atomic<bool> cancelled_ = false;
    bool within_total_ = true;
    std::mutex mutex_;
    std::vector<std::string> warnings_;
    std::vector<std::string> stages_;
};

} // namespace rankscope::test
