// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/byte_size.h"

#include <fmt/format.h>

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>

namespace rankscope {

Result<std::uint64_t> parse_byte_size(std::string_view text)
{
    const auto refuse = [&] {
        return usage_error(fmt::format("\"{}\" is no size", text), {},
                           "Write a number with a unit, such as 6GiB or 60MB");
    };
    double number = 0.0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec != std::errc{} || number < 0.0 || !std::isfinite(number))
        return refuse();
    std::string unit(parsed.ptr, text.data() + text.size());
    while (!unit.empty() && unit.front() == ' ')
        unit.erase(unit.begin());
    for (char& letter : unit)
        letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    if (!unit.empty() && unit.back() == 'b')
        unit.pop_back();
    double factor = 1.0;
    if (!unit.empty()) {
        static constexpr std::string_view k_letters = "kmgt";
        const auto power = k_letters.find(unit.front());
        const bool binary = unit.size() == 2 && unit[1] == 'i';
        if (power == std::string_view::npos || (unit.size() != 1 && !binary))
            return refuse();
        factor = std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
    }
    const double bytes = number * factor;
    if (bytes >= 9.2e18)
        return refuse();
    return static_cast<std::uint64_t>(std::llround(bytes));
}

std::string format_byte_size(std::uint64_t bytes)
{
    static constexpr std::array k_units = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 999.5 && unit + 1 < k_units.size()) {
        value /= 1000.0;
        ++unit;
    }
    if (unit == 0)
        return fmt::format("{} B", bytes);
    const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    return fmt::format("{:.{}f} {}", value, decimals, k_units[unit]);
}

std::string format_duration(double seconds)
{
    const auto whole = static_cast<long long>(std::llround(std::max(0.0, seconds)));
    if (whole >= 3600)
        return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
    return fmt::format("{:02}:{:02}", whole / 60, whole % 60);
}

std::uint64_t available_memory_bytes()
{
    std::ifstream info("/proc/meminfo");
    std::string key;
    std::uint64_t value = 0;
    std::string rest;
    while (info >> key >> value && std::getline(info, rest)) {
        if (key == "MemAvailable:")
            return value * 1024;
    }
    return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES))
           * static_cast<std::uint64_t>(sysconf(_SC_PAGE_SIZE));
}

std::uint64_t resident_bytes()
{
    std::ifstream statm("/proc/self/statm");
    std::uint64_t whole = 0;
    std::uint64_t resident = 0;
    statm >> whole >> resident;
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::uint64_t peak_resident_bytes()
{
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

} // namespace rankscope
