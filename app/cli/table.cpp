// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/table.h"

#include "core/base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope::cli {
namespace {

/// Characters, not bytes: names and units may be beyond ASCII.
std::size_t width(std::string_view text)
{
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; }));
}

bool is_numeric(std::string_view text)
{
    return text.empty() || text == "–" || text.find_first_of("0123456789") == 0
           || (text.front() == '-' && text.size() > 1 && text.find_first_of("0123456789") == 1);
}

std::string csv_cell(const std::string& cell)
{
    if (cell.find_first_of(",\"\n\r") == std::string::npos)
        return cell;
    std::string quoted = "\"";
    for (const char c : cell) {
        quoted += c;
        if (c == '"')
            quoted += '"';
    }
    return quoted + '"';
}

} // namespace

std::string Table::text() const
{
    std::vector<std::size_t> widths(header_.size(), 0);
    std::vector<bool> right(header_.size(), true);
    const auto measure = [&](const std::vector<std::string>& row, bool body) {
        for (std::size_t c = 0; c < header_.size() && c < row.size(); ++c) {
            widths[c] = std::max(widths[c], width(row[c]));
            if (body && !is_numeric(row[c]))
                right[c] = false;
        }
    };
    measure(header_, false);
    for (const auto& row : rows_)
        measure(row, true);
    right[0] = false;
    std::string text;
    const auto print = [&](const std::vector<std::string>& row) {
        std::string line;
        for (std::size_t c = 0; c < header_.size(); ++c) {
            const std::string cell = c < row.size() ? row[c] : std::string();
            const std::string fill(widths[c] - width(cell), ' ');
            line += (c > 0 ? "  " : "") + (right[c] ? fill + cell : cell + fill);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + '\n';
    };
    print(header_);
    for (const auto& row : rows_)
        print(row);
    return text;
}

std::string Table::csv() const
{
    std::string text;
    const auto print = [&](const std::vector<std::string>& row) {
        for (std::size_t c = 0; c < row.size(); ++c)
            text += (c > 0 ? "," : "") + csv_cell(row[c]);
        text += '\n';
    };
    print(header_);
    for (const auto& row : rows_)
        print(row);
    return text;
}

std::string figure(double value)
{
    if (!std::isfinite(value))
        return "–";
    const double size = std::abs(value);
    if (size >= 1e4 && size < 1e15)
        return fmt::format("{:.0f}", value);
    return fmt::format("{:.4g}", value);
}

std::string exact(double value) { return std::isfinite(value) ? Json(value).dump() : std::string(); }

} // namespace rankscope::cli
