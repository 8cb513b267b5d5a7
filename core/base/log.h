// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rankscope::log {

enum class Level { Debug, Info, Warning, Error, Off };

/// Lines below `level` are dropped. Default Warning, on standard error. Also kept in a ring of 10,000 lines.
void set_level(Level level);
void debug(std::string_view line);
void info(std::string_view line);
void warning(std::string_view line);
void error(std::string_view line);
/// Logs a warning the first time this sentence is seen in the process ("No Vulkan device: computing on
/// CPU.").
void warn_once(std::string_view line);
/// The newest `count` lines of the ring, oldest first, formatted.
std::vector<std::string> recent(std::size_t count);

} // namespace rankscope::log
