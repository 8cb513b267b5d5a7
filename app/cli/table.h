// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rankscope::cli {

/// Rows of text in columns: the first column and those that hold words to the left, numbers to the right.
class Table {
public:
    explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.empty(); }
    std::string text() const;
    std::string csv() const;

private:
    std::vector<std::string> header_;
    std::vector<std::vector<std::string>> rows_;
};

/// At most four significant digits; "–" for what is not a number.
std::string figure(double value);
/// Shortest text that reads back the same, for CSV.
std::string exact(double value);

} // namespace rankscope::cli
