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

/// Every character of `special` behind what `escape` makes of it.
template <class Escape>
std::string escaped(const std::string& cell, std::string_view special, const Escape& escape)
{
    std::string text;
    for (const char c : cell) {
        if (special.find(c) == std::string_view::npos)
            text += c;
        else
            text += escape(c);
    }
    return text;
}

std::string markdown_cell(const std::string& cell)
{
    return escaped(cell, "|\\`*_<\n\r",
                   [](char c) { return c == '\n' || c == '\r' ? std::string(" ") : std::string("\\") + c; });
}

std::string latex_cell(const std::string& cell)
{
    const std::string text = escaped(cell, "&%$#_{}~^\\\n\r", [](char c) -> std::string {
        switch (c) {
        case '\n':
        case '\r':
            return " ";
        case '~':
            return "\\textasciitilde{}";
        case '^':
            return "\\textasciicircum{}";
        case '\\':
            return "\\textbackslash{}";
        default:
            return std::string("\\") + c;
        }
    });
    // What our figures hold beyond ASCII and pdflatex has no letters for.
    std::string result;
    for (std::size_t at = 0; at < text.size();) {
        if (text.compare(at, 2, "±") == 0) {
            result += "$\\pm$";
            at += 2;
        } else if (text.compare(at, 3, "–") == 0) {
            result += "--";
            at += 3;
        } else {
            result += text[at++];
        }
    }
    return result;
}

} // namespace

Result<TableFormat> table_format(std::string_view id)
{
    if (id == "text")
        return TableFormat::Text;
    if (id == "csv")
        return TableFormat::Csv;
    if (id == "markdown")
        return TableFormat::Markdown;
    if (id == "latex")
        return TableFormat::Latex;
    return usage_error(fmt::format("there is no table format \"{}\"", id), "--format",
                       "Choose text, csv, markdown or latex");
}

std::vector<bool> Table::number_columns() const
{
    std::vector<bool> right(header_.size(), true);
    for (const auto& row : rows_) {
        for (std::size_t c = 0; c < header_.size() && c < row.size(); ++c)
            right[c] = right[c] && is_numeric(row[c]);
    }
    right[0] = false;
    return right;
}

std::string Table::in(TableFormat format) const
{
    switch (format) {
    case TableFormat::Csv:
        return csv();
    case TableFormat::Markdown:
        return markdown();
    case TableFormat::Latex:
        return latex();
    case TableFormat::Text:
        break;
    }
    return text();
}

std::string Table::markdown() const
{
    std::string text;
    const auto print = [&](const std::vector<std::string>& row) {
        for (std::size_t c = 0; c < header_.size(); ++c)
            text += "| " + (c < row.size() ? markdown_cell(row[c]) : std::string()) + " ";
        text += "|\n";
    };
    print(header_);
    for (const bool right : number_columns())
        text += right ? "| ---: " : "| --- ";
    text += "|\n";
    for (const auto& row : rows_)
        print(row);
    return text;
}

std::string Table::latex() const
{
    std::string text = "\\begin{tabular}{";
    for (const bool right : number_columns())
        text += right ? 'r' : 'l';
    text += "}\n\\toprule\n";
    const auto print = [&](const std::vector<std::string>& row) {
        for (std::size_t c = 0; c < header_.size(); ++c)
            text += (c > 0 ? " & " : "") + (c < row.size() ? latex_cell(row[c]) : std::string());
        text += " \\\\\n";
    };
    print(header_);
    text += "\\midrule\n";
    for (const auto& row : rows_)
        print(row);
    return text + "\\bottomrule\n\\end{tabular}\n";
}

std::string Table::text() const
{
    std::vector<std::size_t> widths(header_.size(), 0);
    const auto measure = [&](const std::vector<std::string>& row) {
        for (std::size_t c = 0; c < header_.size() && c < row.size(); ++c)
            widths[c] = std::max(widths[c], width(row[c]));
    };
    measure(header_);
    for (const auto& row : rows_)
        measure(row);
    const std::vector<bool> right = number_columns();
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
