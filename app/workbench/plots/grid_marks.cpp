// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/grid_marks.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_tick = 9.0;          ///< pixels above the axis
constexpr double k_least_spacing = 3.0; ///< pixels between two ticks that can be told apart

} // namespace

void GridMarks::setGrid(const QVector<double>& levels, const QVector<Band>& bands)
{
    levels_ = levels;
    bands_ = bands;
}

void GridMarks::setColors(const QColor& tick, const QColor& band, const QColor& text, const QColor& base)
{
    tick_ = tick;
    band_ = band;
    text_ = text;
    base_ = base;
}

void GridMarks::drawBand(QCPPainter* painter, const QRectF& inside, const Band& band) const
{
    const QCPAxis* axis = parentPlot()->xAxis;
    const auto pixel = [&](double value, double edge) {
        return std::isfinite(value) ? std::clamp(axis->coordToPixel(value), inside.left(), inside.right())
                                    : edge;
    };
    const QRectF area(QPointF(pixel(band.low, inside.left()), inside.top()),
                      QPointF(pixel(band.high, inside.right()), inside.bottom()));
    if (!(area.width() > 0.0))
        return;
    QColor fill = band_;
    fill.setAlphaF(0.13F);
    painter->fillRect(area, fill);
    if (band.hatched) {
        fill.setAlphaF(0.4F);
        painter->fillRect(area, QBrush(fill, Qt::BDiagPattern));
    }
    const QFontMetricsF metrics(font_);
    if (metrics.horizontalAdvance(band.label) + 8.0 > area.width())
        return;
    painter->setFont(font_);
    const QRectF line(area.left(), area.top() + 2.0, area.width(), metrics.height());
    if (band.hatched) { // words on lines cannot be read
        const double width = metrics.horizontalAdvance(band.label) + 6.0;
        painter->fillRect(QRectF(line.center().x() - width / 2, line.top(), width, line.height()), base_);
    }
    painter->setPen(text_);
    painter->drawText(line, Qt::AlignCenter, band.label);
}

void GridMarks::draw(QCPPainter* painter)
{
    const QRectF inside = parentPlot()->axisRect()->rect();
    for (const Band& band : std::as_const(bands_))
        drawBand(painter, inside, band);
    painter->setAntialiasing(false);
    painter->setPen(QPen(tick_, 1.5));
    double last = -k_least_spacing;
    for (const double level : std::as_const(levels_)) {
        const double x = parentPlot()->xAxis->coordToPixel(level);
        if (x < inside.left() || x > inside.right() || x - last < k_least_spacing)
            continue;
        last = x;
        painter->drawLine(QLineF(x, inside.bottom(), x, inside.bottom() - k_tick));
    }
}

} // namespace rankscope
