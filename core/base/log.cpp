// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/log.h"

#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <set>

namespace rankscope::log {
namespace {

struct Logging {
    std::shared_ptr<spdlog::sinks::stderr_sink_mt> terminal =
        std::make_shared<spdlog::sinks::stderr_sink_mt>();
    std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> ring =
        std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(10'000);
    spdlog::logger logger{"rankscope", {terminal, ring}};
    std::mutex once_mutex;
    std::set<std::string, std::less<>> once;

    Logging()
    {
        logger.set_level(spdlog::level::debug);
        terminal->set_level(spdlog::level::warn);
        terminal->set_pattern("%l: %v");
        ring->set_pattern("%H:%M:%S.%e %L %v");
    }
};

Logging& logging()
{
    static Logging instance;
    return instance;
}

} // namespace

void set_level(Level level)
{
    static constexpr spdlog::level::level_enum k_levels[] = {spdlog::level::debug, spdlog::level::info,
                                                             spdlog::level::warn, spdlog::level::err,
                                                             spdlog::level::off};
    logging().terminal->set_level(k_levels[static_cast<int>(level)]);
}

void debug(std::string_view line) { logging().logger.debug("{}", line); }
void info(std::string_view line) { logging().logger.info("{}", line); }
void warning(std::string_view line) { logging().logger.warn("{}", line); }
void error(std::string_view line) { logging().logger.error("{}", line); }

void warn_once(std::string_view line)
{
    {
        const std::lock_guard lock(logging().once_mutex);
        if (!logging().once.emplace(line).second)
            return;
    }
    warning(line);
}

std::vector<std::string> recent(std::size_t count) { return logging().ring->last_formatted(count); }

} // namespace rankscope::log
