// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace rankscope {

/// "6GiB", "60MB", "512k", "1048576": decimal with B/kB/MB/GB/TB, binary with KiB/MiB/GiB/TiB. Errors: Usage.
Result<std::uint64_t> parse_byte_size(std::string_view text);
/// Three significant digits in decimal units: "1.04 MB".
std::string format_byte_size(std::uint64_t bytes);
/// "00:41", "1:02:07".
std::string format_duration(double seconds);

/// Physical memory that can be taken without swapping, and the present and peak resident size of this process, in bytes.
std::uint64_t available_memory_bytes();
std::uint64_t resident_bytes();
std::uint64_t peak_resident_bytes();

} // namespace rankscope
