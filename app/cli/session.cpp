// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/session.h"

#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/base/log.h"
#include "core/base/thread_pool.h"
#include "gpu/vulkan_backend.h"

#include <fmt/format.h>

namespace rankscope::cli {

Output::Output() = default;
Output::Output(const Output& other) = default;
Output::Output(Output&& other) noexcept = default;
Output& Output::operator=(const Output& other) = default;
Output& Output::operator=(Output&& other) noexcept = default;
Output::~Output() = default;

Session::Session(const GlobalOptions& options) : options_(options), progress_(options.quiet)
{
    log::set_level(options.quiet     ? log::Level::Error
                   : options.verbose ? log::Level::Info
                                     : log::Level::Warning);
    set_thread_count(options.threads);
}

Result<Backend*> Session::backend()
{
    if (!backend_) {
        auto opened = open_backend(options_.backend);
        if (!opened)
            return opened.error();
        backend_ = std::move(*opened);
        if (options_.verbose)
            (void)measure_kernels(*backend_);
    }
    return backend_.get();
}

Result<std::uint64_t> Session::memory_budget() const
{
    constexpr double k_default_share = 0.7;
    if (options_.memory.empty())
        return static_cast<std::uint64_t>(k_default_share * static_cast<double>(available_memory_bytes()));
    auto parsed = parse_byte_size(options_.memory);
    if (!parsed)
        return parsed.error().in("--memory");
    return *parsed;
}

Json Session::process() const
{
    Json json;
    json.set("backend", backend_ ? Json(backend_->id()) : Json());
    json.set("threads", thread_count());
    json.set("seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
    json.set("peak_resident_bytes", peak_resident_bytes());
    return json;
}

std::string Session::process_line() const
{
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    return fmt::format("{} · {} threads · {:.1f} s · {} of memory at most",
                       backend_ ? backend_->name() : "no device used", thread_count(), seconds,
                       format_byte_size(peak_resident_bytes()));
}

std::string Session::kernel_table()
{
    if (!backend_ || !options_.verbose)
        return {};
    KernelTimes times;
    try {
        times = kernel_times(*backend_);
    } catch (const BackendFailure& failure) { // the job has said what it thinks of that
        return failure.error().sentence() + "\n";
    }
    if (times.kernels.empty())
        return {};
    constexpr double k_giga = 1e9;
    Table table({"kernel", "calls", "ms", "share %", "GFLOP/s", "GB/s"});
    const auto rate = [](double per_second) { return per_second > 0.0 ? figure(per_second / k_giga) : ""; };
    for (const KernelTime& kernel : times.kernels)
        table.add({kernel.kernel, fmt::format("{}", kernel.calls), fmt::format("{:.2f}", 1e3 * kernel.seconds),
                   fmt::format("{:.1f}", 100.0 * kernel.share), rate(kernel.flops_per_second()),
                   rate(kernel.bytes_per_second())});
    return fmt::format("{}{} was busy for {:.2f} s of {:.2f} s\n", table.text(), backend_->name(),
                       times.busy_seconds, times.wall_seconds);
}

} // namespace rankscope::cli
