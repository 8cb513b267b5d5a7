// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

/// Text with what HTML and SVG read as markup written out.
std::string escaped(std::string_view text);

/// Points of one color, joined to a line or alone.
struct ChartSeries {
    std::string name;
    std::vector<double> x;
    std::vector<double> y;
    std::vector<std::string> labels; ///< of the points, shown on hovering; may be empty
};

struct ChartText {
    std::string title;
    std::string x;
    std::string y;
};

/// Charts as SVG elements for an HTML page. Colors, fonts and strokes are classes (s0 … s7, axis, grid,
/// label), so that the page's style decides between light, dark and paper. Axes end at round numbers; the
/// same data give the same text.
std::string line_chart(const ChartText& text, const std::vector<ChartSeries>& series,
                       bool with_points = true);
/// Points without lines; the vertical axis is logarithmic where all values are positive and span more than a
/// decade.
std::string scatter_chart(const ChartText& text, const std::vector<ChartSeries>& series);

/// One horizontal bar, stacked of parts.
struct ChartBar {
    std::string label;
    std::vector<double> parts;
};
std::string bar_chart(const ChartText& text, const std::vector<std::string>& part_names,
                      const std::vector<ChartBar>& bars);

} // namespace rankscope
