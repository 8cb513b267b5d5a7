// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/tour/picture_painter.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/text.h"

#include <QFontMetricsF>
#include <QImage>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

Theme::Token tokenOf(SeriesRole role)
{
    switch (role) {
    case SeriesRole::Weight:
        return Theme::Token::SeriesWeight;
    case SeriesRole::Quantized:
        return Theme::Token::SeriesQuantized;
    case SeriesRole::LowRank:
        return Theme::Token::SeriesLowRank;
    case SeriesRole::Residual:
        return Theme::Token::SeriesResidual;
    case SeriesRole::Outlier:
        return Theme::Token::Outlier;
    }
    return Theme::Token::Text;
}

Qt::PenStyle styleOf(SeriesRole role)
{
    switch (role) {
    case SeriesRole::Quantized:
        return Qt::DashLine;
    case SeriesRole::LowRank:
        return Qt::DashDotLine;
    case SeriesRole::Residual:
        return Qt::DotLine;
    default:
        return Qt::SolidLine;
    }
}

QImage mapImage(const MatrixPicture& picture, bool dark)
{
    QImage image(static_cast<int>(picture.cells.cols()), static_cast<int>(picture.cells.rows()),
                 QImage::Format_RGB32);
    for (int row = 0; row < image.height(); ++row) {
        auto* line = reinterpret_cast<QRgb*>(image.scanLine(row));
        for (int col = 0; col < image.width(); ++col)
            line[col] =
                Theme::signedValue(static_cast<double>(picture.cells(row, col)) / picture.limit, dark).rgb();
    }
    return image;
}

} // namespace

PicturePainter::PicturePainter(QPainter& painter, const QFont& font, bool dark)
    : painter_(painter), font_(font), dark_(dark)
{}

void PicturePainter::paint(const LessonPicture& picture, const QRectF& area, bool fresh)
{
    painter_.save();
    painter_.setFont(font_);
    painter_.setRenderHint(QPainter::Antialiasing);
    tick_gap_ = 0.3;
    area_ = area;
    fresh_ = fresh;
    std::visit([this](const auto& one) { (*this)(one); }, picture);
    painter_.restore();
}

double PicturePainter::lineHeight() const { return QFontMetricsF(font_).height(); }

QPen PicturePainter::pen(SeriesRole role, double width) const
{
    return {ink(tokenOf(role)), width * lineHeight() / 16.0, styleOf(role)};
}

void PicturePainter::title(const QString& text)
{
    QFont bold = font_;
    bold.setBold(true);
    painter_.setFont(bold);
    painter_.setPen(ink(fresh_ ? Theme::Token::Accent : Theme::Token::Text));
    const QRectF room(area_.left(), area_.top(), area_.width(), 3.0 * lineHeight());
    const int flags = Qt::AlignLeft | Qt::AlignTop | Qt::TextWordWrap;
    const QRectF used = QFontMetricsF(bold).boundingRect(room, flags, text);
    painter_.drawText(room, flags, text);
    painter_.setFont(font_);
    area_.setTop(area_.top() + std::max(used.height(), lineHeight()) + 0.4 * lineHeight());
}

void PicturePainter::legend(const QVector<LegendEntry>& entries, bool bars)
{
    const QFontMetricsF metrics(font_);
    const double sample = 2.0 * lineHeight();
    double x = area_.left();
    for (const LegendEntry& entry : entries) {
        const double width = sample + 0.4 * lineHeight() + metrics.horizontalAdvance(entry.name);
        if (x > area_.left() && x + width > area_.right()) {
            x = area_.left();
            area_.setTop(area_.top() + 1.15 * lineHeight());
        }
        const double y = area_.top() + 0.5 * lineHeight();
        QPen line = bars ? QPen(ink(tokenOf(entry.role)), 0.5 * lineHeight()) : pen(entry.role, 2.5);
        line.setCapStyle(Qt::FlatCap);
        painter_.setPen(line);
        painter_.drawLine(QPointF(x, y), QPointF(x + sample, y));
        painter_.setPen(ink(Theme::Token::Text));
        painter_.drawText(QPointF(x + sample + 0.4 * lineHeight(), area_.top() + metrics.ascent()),
                          entry.name);
        x += width + lineHeight();
    }
    if (!entries.isEmpty())
        area_.setTop(area_.top() + 1.5 * lineHeight());
}

double PicturePainter::Axis::share(double value) const
{
    if (logarithmic)
        return std::log(std::max(value, low * 1e-3) / low) / std::log(high / low);
    return (value - low) / (high - low);
}

QVector<double> PicturePainter::Axis::ticks(int most) const
{
    QVector<double> values;
    if (logarithmic) {
        const int first = static_cast<int>(std::ceil(std::log10(low) - 1e-9));
        const int last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
        if (last - first < 2) { // within a decade or two: 1, 2, 5
            for (int decade = first - 1; decade <= last; ++decade)
                for (const double step : {1.0, 2.0, 5.0})
                    if (const double tick = step * std::pow(10.0, decade);
                        tick >= low * 0.999 && tick <= high * 1.001)
                        values << tick;
            return values;
        }
        const int stride = std::max(1, (last - first + most) / most);
        for (int decade = first; decade <= last; decade += stride)
            values << std::pow(10.0, decade);
        return values;
    }
    const double rough = (high - low) / std::max(1, most);
    double step = std::pow(10.0, std::floor(std::log10(rough)));
    step *= rough / step > 5.0 ? 10.0 : rough / step > 2.0 ? 5.0 : rough / step > 1.0 ? 2.0 : 1.0;
    if (whole)
        step = std::max(1.0, std::round(step));
    for (double tick = std::ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step)
        values << (std::abs(tick) < 1e-9 * step ? 0.0 : tick);
    return values;
}

void PicturePainter::yAxis(const Axis& y, const QString& label)
{
    const QFontMetricsF metrics(font_);
    const QVector<double> ticks =
        y.ticks(std::max(2, static_cast<int>(plot_.height() / (3.0 * lineHeight()))));
    double widest = 0.0;
    for (const double tick : ticks)
        widest = std::max(widest, metrics.horizontalAdvance(formatTick(tick, false)));
    plot_.setLeft(area_.left() + widest + 1.9 * lineHeight());
    for (const double tick : ticks) {
        const double place = plot_.bottom() - y.share(tick) * plot_.height();
        painter_.setPen(QPen(ink(Theme::Token::Grid), 1.0));
        painter_.drawLine(QPointF(plot_.left(), place), QPointF(plot_.right(), place));
        painter_.setPen(ink(Theme::Token::Muted));
        const QString text = formatTick(tick, false);
        painter_.drawText(QPointF(plot_.left() - 0.4 * lineHeight() - metrics.horizontalAdvance(text),
                                  place + 0.35 * metrics.ascent()),
                          text);
    }
    painter_.save();
    painter_.translate(area_.left(), plot_.center().y());
    painter_.rotate(-90.0);
    painter_.drawText(QRectF(-plot_.height() / 2.0, 0.0, plot_.height(), 1.2 * lineHeight()), Qt::AlignCenter,
                      metrics.elidedText(label, Qt::ElideRight, plot_.height()));
    painter_.restore();
}

void PicturePainter::xAxis(const Axis& x, const QString& label)
{
    const QFontMetricsF metrics(font_);
    const int most = std::max(2, static_cast<int>(plot_.width() / (6.0 * lineHeight())));
    painter_.setPen(ink(Theme::Token::Muted));
    for (const double tick : x.ticks(most)) {
        const double place = plot_.left() + x.share(tick) * plot_.width();
        painter_.drawLine(QPointF(place, plot_.bottom()),
                          QPointF(place, plot_.bottom() + 0.3 * lineHeight()));
        const QString text = formatTick(tick, false);
        painter_.drawText(QPointF(place - metrics.horizontalAdvance(text) / 2.0,
                                  plot_.bottom() + tick_gap_ * lineHeight() + metrics.ascent()),
                          text);
    }
    painter_.drawText(QRectF(plot_.left(), plot_.bottom() + (1.1 + tick_gap_) * lineHeight(), plot_.width(),
                             1.2 * lineHeight()),
                      Qt::AlignCenter, metrics.elidedText(label, Qt::ElideRight, plot_.width()));
}

void PicturePainter::axes(const Axis& x, const Axis& y, const QString& x_label, const QString& y_label)
{
    plot_ = area_.adjusted(0.0, 0.3 * lineHeight(), -0.8 * lineHeight(), -(2.5 + tick_gap_) * lineHeight());
    yAxis(y, y_label);
    xAxis(x, x_label);
    painter_.setPen(QPen(ink(Theme::Token::Muted), 1.0));
    painter_.drawLine(plot_.bottomLeft(), plot_.bottomRight());
    painter_.drawLine(plot_.bottomLeft(), plot_.topLeft());
}

QPointF PicturePainter::at(const Axis& x, double value_x, const Axis& y, double value_y) const
{
    return {plot_.left() + x.share(value_x) * plot_.width(),
            plot_.bottom() - std::clamp(y.share(value_y), 0.0, 1.0) * plot_.height()};
}

void PicturePainter::triangle(QPointF tip, double size)
{
    painter_.setPen(Qt::NoPen);
    painter_.setBrush(ink(Theme::Token::Outlier));
    painter_.drawPolygon(
        QPolygonF{tip, {tip.x() - size / 2.0, tip.y() + size}, {tip.x() + size / 2.0, tip.y() + size}});
    painter_.setBrush(Qt::NoBrush);
}

void PicturePainter::colorScale(double limit, const QRectF& area)
{
    const QFontMetricsF metrics(font_);
    const QRectF bar(area.left(), area.top(), 0.8 * lineHeight(), area.height());
    QImage ramp(1, 256, QImage::Format_RGB32);
    for (int i = 0; i < 256; ++i)
        ramp.setPixelColor(0, i, Theme::signedValue(1.0 - i / 127.5, dark_));
    painter_.drawImage(bar, ramp);
    painter_.setPen(ink(Theme::Token::Muted));
    const double x = bar.right() + 0.3 * lineHeight();
    const auto label = [&](double y, const QString& text) { painter_.drawText(QPointF(x, y), text); };
    label(bar.top() + metrics.ascent(), QStringLiteral("≥ ") + formatNumber(limit, 2));
    label(bar.center().y() + 0.35 * metrics.ascent(), QStringLiteral("0"));
    label(bar.bottom() - metrics.descent() * 0.5, QStringLiteral("≤ −") + formatNumber(limit, 2));
}

void PicturePainter::operator()(const MatrixPicture& picture)
{
    title(toQString(picture.title));
    if (picture.cells.size() == 0)
        return;
    const QFontMetricsF metrics(font_);
    const double scale = 1.5 * lineHeight()
                         + metrics.horizontalAdvance(QStringLiteral("≤ −") + formatNumber(picture.limit, 2));
    plot_ = area_.adjusted(1.4 * lineHeight(), 0.0, -scale - 0.6 * lineHeight(), -2.6 * lineHeight());
    painter_.save();
    painter_.setRenderHint(QPainter::SmoothPixmapTransform,
                           static_cast<double>(picture.cells.cols()) > plot_.width());
    painter_.drawImage(plot_, mapImage(picture, dark_));
    painter_.restore();
    painter_.setPen(QPen(ink(Theme::Token::Border), 1.0));
    painter_.setBrush(Qt::NoBrush);
    painter_.drawRect(plot_);
    const double size = 0.6 * lineHeight();
    for (const Index column : picture.marked) {
        const double place = (static_cast<double>(column) + 0.5) / static_cast<double>(picture.cols);
        triangle({plot_.left() + place * plot_.width(), plot_.bottom() + 2.0}, size);
    }
    painter_.setPen(ink(Theme::Token::Muted));
    painter_.drawText(
        QRectF(plot_.left(), plot_.bottom() + 1.0 * lineHeight(), plot_.width(), 1.4 * lineHeight()),
        Qt::AlignCenter, QStringLiteral("%1, 0 … %2").arg(toQString(picture.x_label)).arg(picture.cols - 1));
    painter_.save();
    painter_.translate(area_.left(), plot_.center().y());
    painter_.rotate(-90.0);
    painter_.drawText(QRectF(-plot_.height() / 2.0, 0.0, plot_.height(), 1.2 * lineHeight()), Qt::AlignCenter,
                      QStringLiteral("%1, %2 … 0").arg(toQString(picture.y_label)).arg(picture.rows - 1));
    painter_.restore();
    colorScale(picture.limit, {plot_.right() + 0.6 * lineHeight(), plot_.top(), scale, plot_.height()});
}

void PicturePainter::operator()(const ChannelPicture& picture)
{
    title(toQString(picture.title));
    if (picture.series.empty() || picture.series.front().values.size() == 0)
        return;
    const Index count = picture.series.front().values.size();
    QVector<LegendEntry> entries;
    double most = 0.0;
    double least = std::numeric_limits<double>::infinity();
    for (const auto& series : picture.series) {
        entries << LegendEntry{toQString(series.name), series.role};
        most = std::max(most, series.values.maxCoeff());
        for (const double value : series.values)
            if (value > 0.0)
                least = std::min(least, value);
    }
    legend(entries, !picture.sorted);
    Axis y{0.0, most > 0.0 ? 1.05 * most : 1.0, picture.logarithmic && most > 0.0, false};
    if (y.logarithmic) {
        y.low = std::max(least, most * 1e-4) / 1.3;
        y.high = most * 1.3;
    }
    const Axis x{-0.5, static_cast<double>(count) - 0.5, false, true};
    tick_gap_ = picture.marked.empty() ? 0.3 : 0.8;
    axes(x, y, picture.sorted ? QStringLiteral("channels, strongest first") : QStringLiteral("input channel"),
         toQString(picture.y_label));
    const double room = plot_.width() / static_cast<double>(count);
    const double width = std::clamp(0.7 * room, 1.0, 0.5 * lineHeight());
    double back = 1.0;
    for (const auto& series : picture.series) {
        if (picture.sorted) { // falling values are a curve; bars would hide each other
            QPolygonF curve;
            for (Index j = 0; j < count; ++j)
                curve << at(x, static_cast<double>(j), y, series.values[j]);
            painter_.setPen(pen(series.role, 2.0));
            painter_.drawPolyline(curve);
            continue;
        }
        QPen line(ink(tokenOf(series.role)), width * back);
        line.setCapStyle(Qt::FlatCap);
        painter_.setPen(line);
        for (Index j = 0; j < count; ++j)
            painter_.drawLine(at(x, static_cast<double>(j), y, y.low),
                              at(x, static_cast<double>(j), y, series.values[j]));
        back *= 0.55; // the one in front is slimmer, so that both are seen
    }
    for (const Index channel : picture.marked)
        triangle(at(x, static_cast<double>(channel), y, y.low) + QPointF(0.0, 2.0), 0.6 * lineHeight());
}

void PicturePainter::operator()(const HistogramPicture& picture)
{
    title(toQString(picture.title));
    QVector<LegendEntry> entries;
    double most = 1.0;
    for (const auto& series : picture.series) {
        entries << LegendEntry{
            QStringLiteral("%1: %2 … %3")
                .arg(toQString(series.name), formatNumber(series.lowest, 3), formatNumber(series.highest, 3)),
            series.role};
        if (series.counts.size() > 0)
            most = std::max(most, series.counts.maxCoeff());
    }
    legend(entries);
    const Axis x{picture.low, picture.high, false, false};
    const Axis y{0.7, most * 1.4, true, false};
    axes(x, y, toQString(picture.x_label), QStringLiteral("weights in a bin"));
    for (const auto& series : picture.series) {
        QPolygonF outline;
        const auto bins = static_cast<double>(series.counts.size());
        for (Index i = 0; i < series.counts.size(); ++i) {
            const double left = picture.low + (picture.high - picture.low) * static_cast<double>(i) / bins;
            const double right = left + (picture.high - picture.low) / bins;
            const double height = std::max(series.counts[i], y.low);
            outline << at(x, left, y, height) << at(x, right, y, height);
        }
        QColor fill = ink(tokenOf(series.role));
        fill.setAlphaF(0.18F);
        QPolygonF closed = outline;
        closed << QPointF(plot_.right(), plot_.bottom()) << plot_.bottomLeft();
        painter_.setPen(Qt::NoPen);
        painter_.setBrush(fill);
        painter_.drawPolygon(closed);
        painter_.setBrush(Qt::NoBrush);
        painter_.setPen(pen(series.role, 2.0));
        painter_.drawPolyline(outline);
    }
    painter_.setPen(QPen(ink(Theme::Token::Outlier), 2.0));
    for (const double level : picture.levels)
        painter_.drawLine(at(x, level, y, y.low),
                          at(x, level, y, y.low) - QPointF(0.0, 0.12 * plot_.height()));
}

void PicturePainter::operator()(const CurvePicture& picture)
{
    title(toQString(picture.title));
    QVector<LegendEntry> entries;
    Axis x{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
           picture.x_logarithmic, true};
    double most = 0.0;
    for (const auto& series : picture.series) {
        entries << LegendEntry{toQString(series.name), series.role};
        if (series.x.size() == 0)
            continue;
        x.low = std::min(x.low, series.x.minCoeff());
        x.high = std::max(x.high, series.x.maxCoeff());
        most = std::max(most, series.y.maxCoeff());
    }
    legend(entries);
    if (!(x.low <= x.high))
        return;
    if (x.low == x.high)
        x.high = x.low + 1.0;
    if (x.logarithmic) {
        x.low /= 1.1;
        x.high *= 1.1;
    }
    const Axis y{0.0, most > 0.0 ? 1.08 * most : 1.0, false, false};
    axes(x, y, toQString(picture.x_label), toQString(picture.y_label));
    if (picture.cursor >= x.low) {
        painter_.setPen(QPen(ink(Theme::Token::Accent), 1.5));
        painter_.drawLine(at(x, picture.cursor, y, y.low), at(x, picture.cursor, y, y.high));
    }
    const double dot = 0.22 * lineHeight();
    for (const auto& series : picture.series) {
        QPolygonF line;
        for (Index i = 0; i < series.x.size(); ++i)
            line << at(x, series.x[i], y, series.y[i]);
        painter_.setPen(pen(series.role, 2.0));
        painter_.drawPolyline(line);
        painter_.setPen(Qt::NoPen);
        for (Index i = 0; i < series.x.size(); ++i) {
            const bool here = series.x[i] == picture.cursor;
            painter_.setBrush(ink(tokenOf(series.role)));
            painter_.drawEllipse(line[i], here ? 1.8 * dot : dot, here ? 1.8 * dot : dot);
        }
        painter_.setBrush(Qt::NoBrush);
    }
}

void PicturePainter::operator()(const BarsPicture& picture)
{
    title(toQString(picture.title));
    if (picture.bars.empty())
        return;
    const QFontMetricsF metrics(font_);
    double most = 0.0;
    for (const auto& bar : picture.bars)
        most = std::max(most, bar.value);
    const double value_room = metrics.horizontalAdvance(QStringLiteral(" 0.00000"));
    plot_ = area_.adjusted(0.0, 0.0, -value_room, -2.8 * lineHeight());
    const double room =
        std::min(5.5 * lineHeight(), plot_.height() / static_cast<double>(picture.bars.size()));
    plot_.setHeight(room * static_cast<double>(picture.bars.size()));
    const Axis x{0.0, most > 0.0 ? most : 1.0, false, false};
    for (std::size_t i = 0; i < picture.bars.size(); ++i) {
        const auto& bar = picture.bars[i];
        const double top = plot_.top() + room * static_cast<double>(i);
        painter_.setPen(ink(Theme::Token::Text));
        painter_.drawText(QPointF(plot_.left(), top + metrics.ascent()), toQString(bar.name));
        const QRectF box(plot_.left(), top + 1.25 * lineHeight(), x.share(bar.value) * plot_.width(),
                         std::max(4.0, room - 1.9 * lineHeight()));
        painter_.setPen(QPen(ink(tokenOf(bar.role)), 1.5));
        QColor fill = ink(tokenOf(bar.role));
        fill.setAlphaF(0.75F);
        painter_.setBrush(fill);
        painter_.drawRect(box);
        painter_.setBrush(Qt::NoBrush);
        painter_.setPen(ink(Theme::Token::Text));
        painter_.drawText(
            QPointF(box.right() + 0.4 * lineHeight(), box.center().y() + 0.35 * metrics.ascent()),
            picture.percent ? formatPercent(bar.value) : formatNumber(bar.value));
    }
    xAxis(x, toQString(picture.x_label));
}

void PicturePainter::operator()(const RoundingPicture& picture)
{
    title(toQString(picture.title));
    if (picture.weights.empty())
        return;
    Axis x{0.0, 0.0, false, true};
    for (const auto& weight : picture.weights)
        for (const double value : {weight.position, weight.divided, static_cast<double>(weight.nearest),
                                   static_cast<double>(weight.learned)}) {
            x.low = std::min(x.low, value);
            x.high = std::max(x.high, value);
        }
    x.low = std::floor(x.low) - 0.5;
    x.high = std::ceil(x.high) + 0.5;
    const QFontMetricsF metrics(font_);
    double names = 0.0;
    for (const auto& weight : picture.weights)
        names = std::max(names, metrics.horizontalAdvance(toQString(weight.name)));
    plot_ = area_.adjusted(names + lineHeight(), 0.0, -0.8 * lineHeight(), -2.8 * lineHeight());
    painter_.setPen(QPen(ink(Theme::Token::Grid), 1.0, Qt::DashLine));
    for (double border = std::ceil(x.low) + 0.5; border < x.high; border += 1.0) {
        const double place = plot_.left() + x.share(border) * plot_.width();
        painter_.drawLine(QPointF(place, plot_.top()), QPointF(place, plot_.bottom()));
    }
    const double room = plot_.height() / static_cast<double>(picture.weights.size());
    const double dot = std::min(0.32 * lineHeight(), 0.3 * room);
    for (std::size_t i = 0; i < picture.weights.size(); ++i) {
        const auto& weight = picture.weights[i];
        const double y = plot_.top() + room * (static_cast<double>(i) + 0.5);
        const auto place = [&](double value) {
            return QPointF(plot_.left() + x.share(value) * plot_.width(), y);
        };
        painter_.setPen(ink(Theme::Token::Muted));
        painter_.drawText(QPointF(area_.left(), y + 0.35 * metrics.ascent()), toQString(weight.name));
        painter_.setPen(QPen(ink(Theme::Token::Grid), 1.0));
        painter_.drawLine(QPointF(plot_.left(), y), QPointF(plot_.right(), y));
        painter_.setPen(QPen(ink(Theme::Token::SeriesLowRank), 2.0));
        painter_.drawLine(place(weight.position), place(weight.divided));
        painter_.drawEllipse(place(weight.divided), dot * 1.3, dot * 1.3);
        painter_.setPen(Qt::NoPen);
        painter_.setBrush(ink(Theme::Token::SeriesWeight));
        painter_.drawEllipse(place(weight.position), dot, dot);
        painter_.setBrush(Qt::NoBrush);
    }
    xAxis(x, toQString(picture.x_label));
}

} // namespace rankscope
