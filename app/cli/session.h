// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/options.h"
#include "app/cli/progress_line.h"
#include "core/compute/backend.h"
#include "core/model/model.h"

#include <chrono>
#include <memory>
#include <string_view>

namespace rankscope::cli {

/// What a subcommand works with: the options, the progress line, and the device, opened when first asked for.
class Session {
public:
    explicit Session(const GlobalOptions& options);

    const GlobalOptions& options() const { return options_; }
    ProgressLine& monitor() { return progress_; }
    Result<Backend*> backend();
    /// --memory, or 70 % of what is available now.
    Result<std::uint64_t> memory_budget() const;
    /// {"backend", "threads", "seconds", "peak_resident_bytes"}: what computed a result, for JSON reports.
    Json process() const;
    /// The same as a line for --verbose.
    std::string process_line() const;
    /// The kernels of a Vulkan device and their times as a table for --verbose; empty where none was measured.
    std::string kernel_table();

private:
    GlobalOptions options_;
    ProgressLine progress_;
    std::unique_ptr<Backend> backend_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

} // namespace rankscope::cli
