// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope::cli {

/// How a table is written down.
enum class TableFormat : std::uint8_t { Text, Csv, Markdown, Latex };
/// "text", "csv", "markdown", "latex". Errors: Usage.
Result<TableFormat> table_format(std::string_view id);

/// Rows of text in columns: the first column and those that hold words to the left, numbers to the right.
class Table {
public:
    explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.empty(); }
    std::string text() const;
    std::string csv() const;
    std::string markdown() const;
    std::string latex() const; ///< a tabular with the rules of booktabs
    std::string in(TableFormat format) const;

private:
    std::vector<bool> number_columns() const; ///< those that stand to the right
    std::vector<std::string> header_;
    std::vector<std::vector<std::string>> rows_;
};

/// At most four significant digits; "–" for what is not a number.
std::string figure(double value);
/// Shortest text that reads back the same, for CSV.
std::string exact(double value);

} // namespace rankscope::cli
