// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/progress_line.h"

#include "core/base/byte_size.h"

#include <fmt/format.h>

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>

namespace rankscope::cli {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void request_stop(int) { stop_requested = true; }

} // namespace

void catch_stop_signals()
{
    struct sigaction action = {};
    action.sa_handler = request_stop;
    action.sa_flags = static_cast<int>(SA_RESETHAND); // the second signal ends the process
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN); // a file size limit is then an error with a sentence
}

ProgressLine::ProgressLine(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

bool ProgressLine::cancelled() const { return stop_requested; }

std::string ProgressLine::compose(std::string_view what, std::uint64_t done, std::uint64_t total,
                                  std::string_view detail, double seconds_left)
{
    std::string line =
        total > 0 ? fmt::format("{} {}/{}", what, done, total) : fmt::format("{} {}", what, done);
    if (!detail.empty())
        line += fmt::format(" · {}", detail);
    if (seconds_left >= 0.0)
        line += fmt::format(" · {} left", format_duration(seconds_left));
    return line;
}

void ProgressLine::report(std::uint64_t done, std::uint64_t total, std::string_view what)
{
    const std::lock_guard lock(mutex_);
    if (what != what_ || done < done_ || total != total_) {
        what_ = what;
        first_done_ = done;
        stage_start_ = Clock::now();
    }
    done_ = done;
    total_ = total;
    draw();
}

void ProgressLine::set_detail(std::string_view detail)
{
    const std::lock_guard lock(mutex_);
    detail_ = detail;
    if (!what_.empty())
        draw();
}

void ProgressLine::set_prefix(std::string_view prefix)
{
    const std::lock_guard lock(mutex_);
    prefix_ = prefix;
}

void ProgressLine::draw()
{
    if (quiet_)
        return;
    constexpr auto k_terminal_interval = std::chrono::milliseconds(100);
    constexpr auto k_plain_interval = std::chrono::seconds(1);
    const auto now = Clock::now();
    const auto interval =
        terminal_ ? Clock::duration(k_terminal_interval) : Clock::duration(k_plain_interval);
    if (last_drawn_ != Clock::time_point() && now - last_drawn_ < interval)
        return;
    last_drawn_ = now;
    const double elapsed = std::chrono::duration<double>(now - stage_start_).count();
    const std::uint64_t steps = done_ - first_done_;
    double left = -1.0;
    if (steps > 0 && total_ >= done_ && elapsed > 0.5)
        left = elapsed / static_cast<double>(steps) * static_cast<double>(total_ - done_);
    const std::string line = prefix_ + compose(what_, done_, total_, detail_, left);
    // \033[K clears what a longer line left behind.
    fmt::print(stderr, "{}{}{}", terminal_ ? "\r" : "", line, terminal_ ? "\033[K" : "\n");
    std::fflush(stderr);
    drawn_ = terminal_;
}

void ProgressLine::clear()
{
    const std::lock_guard lock(mutex_);
    if (drawn_)
        fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    drawn_ = false;
    what_.clear();
    detail_.clear();
}

void ProgressLine::warn(std::string_view sentence)
{
    const std::lock_guard lock(mutex_);
    if (quiet_)
        return;
    fmt::print(stderr, "{}warning: {}\n", drawn_ ? "\r\033[K" : "", sentence);
    drawn_ = false;
}

} // namespace rankscope::cli
