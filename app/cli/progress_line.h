// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

namespace rankscope::cli {

/// Progress on standard error: one line that redraws on a terminal, plain lines at most once a second
/// otherwise. Cancelled once the process was asked to stop (SIGINT, SIGTERM).
class ProgressLine : public Monitor {
public:
    explicit ProgressLine(bool quiet);
    ~ProgressLine() override { clear(); }

    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override;
    void warn(std::string_view sentence) override;
    bool cancelled() const override;

    /// What is being worked on, shown between the count and the time left: a layer's name.
    void set_detail(std::string_view detail);
    /// Put in front of everything, such as the method that a demonstration is at.
    void set_prefix(std::string_view prefix);
    /// Removes the line, so that what is printed next stands alone.
    void clear();

    /// "layer 12/30 · model.layers.1.mlp.down_proj · 00:41 left"; no time while nothing is known of it.
    static std::string compose(std::string_view what, std::uint64_t done, std::uint64_t total,
                               std::string_view detail, double seconds_left);

private:
    void draw();

    const bool quiet_;
    const bool terminal_;
    std::mutex mutex_;
    std::string what_;
    std::string detail_;
    std::string prefix_;
    std::uint64_t first_done_ = 0; ///< where this stage began: a resumed one does not begin at zero
    std::uint64_t done_ = 0;
    std::uint64_t total_ = 0;
    bool drawn_ = false;
    std::chrono::steady_clock::time_point stage_start_;
    std::chrono::steady_clock::time_point last_drawn_;
};

/// From now on SIGINT and SIGTERM ask for a stop; a second one ends the process at once.
void catch_stop_signals();

} // namespace rankscope::cli
