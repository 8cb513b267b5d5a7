// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_width = 640;
constexpr double k_height = 300;
constexpr double k_left = 64;
constexpr double k_right = 16;
constexpr double k_top = 14;
constexpr double k_bottom = 78; ///< ticks, axis title and legend
constexpr double k_bar_height = 18;
constexpr double k_bar_gap = 10;
constexpr int k_colors = 8;

std::string color_class(std::size_t index) { return fmt::format("s{}", index % k_colors); }

/// Values between two round numbers, with ticks at round steps or at powers of ten.
class Axis {
public:
    Axis(double low, double high, bool logarithmic) : logarithmic_(logarithmic)
    {
        if (!(high > low)) {
            low -= 0.5;
            high = low + 1.0;
        }
        if (logarithmic_) {
            low_ = std::log10(low);
            high_ = std::log10(high);
            for (double decade = std::floor(low_); decade <= std::ceil(high_); ++decade) {
                for (const double step : {1.0, 2.0, 5.0})
                    add_tick(decade + std::log10(step));
            }
            return;
        }
        constexpr double k_wanted = 5.0;
        const double raw = (high - low) / k_wanted;
        const double power = std::pow(10.0, std::floor(std::log10(raw)));
        double step = 10.0 * power;
        for (const double candidate : {1.0, 2.0, 2.5, 5.0}) {
            if (candidate * power >= raw) {
                step = candidate * power;
                break;
            }
        }
        low_ = std::floor(low / step) * step;
        high_ = std::ceil(high / step) * step;
        const auto count = static_cast<int>(std::lround((high_ - low_) / step));
        for (int i = 0; i <= count; ++i)
            add_tick(low_ + i * step);
    }

    /// 0 at the low end, 1 at the high one.
    double place(double value) const
    {
        const double inner = logarithmic_ ? std::log10(value) : value;
        return (inner - low_) / (high_ - low_);
    }
    const std::vector<double>& ticks() const { return ticks_; }

private:
    void add_tick(double inner)
    {
        const double slack = 1e-9 * (high_ - low_);
        if (inner < low_ - slack || inner > high_ + slack)
            return;
        const double value = logarithmic_ ? std::pow(10.0, inner) : inner;
        ticks_.push_back(std::abs(value) < 1e-12 ? 0.0 : value);
    }

    bool logarithmic_;
    double low_ = 0.0;
    double high_ = 1.0;
    std::vector<double> ticks_;
};

struct Range {
    double low = std::numeric_limits<double>::infinity();
    double high = -std::numeric_limits<double>::infinity();
    void add(double value)
    {
        low = std::min(low, value);
        high = std::max(high, value);
    }
};

/// A plot's frame, its axes and what is drawn between them.
class Plot {
public:
    Plot(const ChartText& text, const std::vector<ChartSeries>& series, bool from_zero,
         bool may_be_logarithmic)
        : text_(text), series_(series)
    {
        Range x;
        Range y;
        for (const ChartSeries& one : series) {
            for (const double value : one.x)
                x.add(value);
            for (const double value : one.y)
                y.add(value);
        }
        if (x.low > x.high) {
            x = {0.0, 1.0};
            y = {0.0, 1.0};
        }
        const bool logarithmic = may_be_logarithmic && y.low > 0.0 && y.high > 10.0 * y.low;
        x_ = Axis(x.low, x.high, false);
        y_ = Axis(from_zero && !logarithmic ? std::min(0.0, y.low) : y.low, y.high, logarithmic);
    }

    std::string draw(bool lines, bool points) const
    {
        std::string svg =
            fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                        k_width, k_height, escaped(text_.title));
        svg += frame();
        for (std::size_t i = 0; i < series_.size(); ++i) {
            if (lines)
                svg += line(i);
            if (points)
                svg += dots(i);
        }
        return svg + legend() + "</svg>\n";
    }

private:
    double x_at(double value) const { return k_left + x_.place(value) * (k_width - k_left - k_right); }
    double y_at(double value) const
    {
        return k_height - k_bottom - y_.place(value) * (k_height - k_top - k_bottom);
    }

    std::string frame() const
    {
        std::string svg;
        const double floor = k_height - k_bottom;
        for (const double tick : y_.ticks()) {
            const double y = y_at(tick);
            svg +=
                fmt::format("<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>",
                            k_left, y, k_width - k_right, y);
            svg += fmt::format("<text class=\"tick end\" x=\"{:.1f}\" y=\"{:.1f}\">{:.4g}</text>\n",
                               k_left - 8, y + 4, tick);
        }
        for (const double tick : x_.ticks())
            svg += fmt::format("<text class=\"tick middle\" x=\"{:.1f}\" y=\"{:.1f}\">{:.4g}</text>\n",
                               x_at(tick), floor + 18, tick);
        svg += fmt::format("<line class=\"axis\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", k_left, floor,
                           k_width - k_right, floor);
        svg += fmt::format("<text class=\"label middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                           (k_left + k_width - k_right) / 2, floor + 38, escaped(text_.x));
        const double middle = (k_top + floor) / 2;
        svg += fmt::format(
            "<text class=\"label middle\" x=\"14\" y=\"{0:.1f}\" transform=\"rotate(-90 14 {0:.1f})\">{1}"
            "</text>\n",
            middle, escaped(text_.y));
        return svg;
    }

    std::string line(std::size_t index) const
    {
        const ChartSeries& one = series_[index];
        std::string points;
        for (std::size_t i = 0; i < one.x.size(); ++i)
            points += fmt::format("{}{:.1f},{:.1f}", i ? " " : "", x_at(one.x[i]), y_at(one.y[i]));
        return fmt::format("<polyline class=\"line {}\" points=\"{}\"/>\n", color_class(index), points);
    }

    std::string dots(std::size_t index) const
    {
        const ChartSeries& one = series_[index];
        std::string svg;
        for (std::size_t i = 0; i < one.x.size(); ++i) {
            const std::string label = i < one.labels.size() ? one.labels[i] : one.name;
            svg += fmt::format(
                "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>{}: {:.4g}</title>"
                "</circle>\n",
                color_class(index), x_at(one.x[i]), y_at(one.y[i]), escaped(label), one.y[i]);
        }
        return svg;
    }

    std::string legend() const
    {
        if (series_.size() < 2)
            return {};
        std::string svg;
        const double step = (k_width - k_left - k_right) / static_cast<double>(series_.size());
        for (std::size_t i = 0; i < series_.size(); ++i) {
            const double x = k_left + static_cast<double>(i) * step;
            svg += fmt::format(
                "<rect class=\"fill {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"10\" height=\"10\" rx=\"2\"/>",
                color_class(i), x, k_height - 18);
            svg += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + 15,
                               k_height - 9, escaped(series_[i].name));
        }
        return svg;
    }

    const ChartText& text_;
    const std::vector<ChartSeries>& series_;
    Axis x_{0.0, 1.0, false};
    Axis y_{0.0, 1.0, false};
};

} // namespace

std::string escaped(std::string_view text)
{
    std::string result;
    for (const char c : text) {
        switch (c) {
        case '&':
            result += "&amp;";
            break;
        case '<':
            result += "&lt;";
            break;
        case '>':
            result += "&gt;";
            break;
        case '"':
            result += "&quot;";
            break;
        default:
            result += c;
        }
    }
    return result;
}

std::string line_chart(const ChartText& text, const std::vector<ChartSeries>& series, bool with_points)
{
    return Plot(text, series, true, false).draw(true, with_points);
}

std::string scatter_chart(const ChartText& text, const std::vector<ChartSeries>& series)
{
    return Plot(text, series, true, true).draw(false, true);
}

std::string bar_chart(const ChartText& text, const std::vector<std::string>& part_names,
                      const std::vector<ChartBar>& bars)
{
    double largest = 0.0;
    for (const ChartBar& bar : bars) {
        double sum = 0.0;
        for (const double part : bar.parts)
            sum += part;
        largest = std::max(largest, sum);
    }
    const Axis axis(0.0, largest, false);
    const double floor = k_top + static_cast<double>(bars.size()) * (k_bar_height + k_bar_gap);
    const double height = floor + k_bottom - 12;
    const auto x_at = [&](double value) { return k_left + axis.place(value) * (k_width - k_left - k_right); };
    std::string svg =
        fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", k_width,
                    height, escaped(text.title));
    for (const double tick : axis.ticks()) {
        svg += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\"/>",
                           x_at(tick), k_top, floor);
        svg += fmt::format("<text class=\"tick middle\" x=\"{:.1f}\" y=\"{:.1f}\">{:.4g}</text>\n",
                           x_at(tick), floor + 16, tick);
    }
    for (std::size_t i = 0; i < bars.size(); ++i) {
        const double y = k_top + static_cast<double>(i) * (k_bar_height + k_bar_gap) + k_bar_gap / 2;
        svg += fmt::format("<text class=\"tick end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", k_left - 8,
                           y + k_bar_height - 5, escaped(bars[i].label));
        double sum = 0.0;
        for (std::size_t part = 0; part < bars[i].parts.size(); ++part) {
            const double value = bars[i].parts[part];
            svg += fmt::format(
                "<rect class=\"fill {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\">"
                "<title>{}: {:.4g}</title></rect>",
                color_class(part), x_at(sum), y, x_at(sum + value) - x_at(sum), k_bar_height,
                escaped(part_names[part]), value);
            sum += value;
        }
        svg += "\n";
    }
    svg += fmt::format("<text class=\"label middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                       (k_left + k_width - k_right) / 2, floor + 36, escaped(text.x));
    for (std::size_t part = 0; part < part_names.size(); ++part) {
        const double x = k_left + static_cast<double>(part) * 110;
        svg += fmt::format(
            "<rect class=\"fill {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"10\" height=\"10\" rx=\"2\"/>"
            "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
            color_class(part), x, height - 16, x + 15, height - 7, escaped(part_names[part]));
    }
    return svg + "</svg>\n";
}

} // namespace rankscope
