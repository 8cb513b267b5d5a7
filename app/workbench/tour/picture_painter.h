// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/theme.h"
#include "core/teaching/picture.h"

#include <QFont>
#include <QPainter>

namespace rankscope {

/// Draws a lesson's pictures: on the screen, into a PDF, into a PNG, all alike.
class PicturePainter {
public:
    PicturePainter(QPainter& painter, const QFont& font, bool dark);

    /// `fresh`: it was not on the frame before; its title is in the accent color then.
    void paint(const LessonPicture& picture, const QRectF& area, bool fresh);

    void operator()(const MatrixPicture& picture);
    void operator()(const ChannelPicture& picture);
    void operator()(const HistogramPicture& picture);
    void operator()(const CurvePicture& picture);
    void operator()(const BarsPicture& picture);
    void operator()(const RoundingPicture& picture);

private:
    struct Axis {
        double low = 0.0, high = 1.0;
        bool logarithmic = false;
        bool whole = false; ///< ticks at whole numbers only
        double share(double value) const;
        QVector<double> ticks(int most) const;
    };
    struct LegendEntry {
        QString name;
        SeriesRole role;
    };

    QColor ink(Theme::Token token) const { return Theme::color(token, dark_); }
    QPen pen(SeriesRole role, double width) const;
    void title(const QString& text);
    void legend(const QVector<LegendEntry>& entries, bool bars = false);
    /// Frame, ticks, grid and labels; `plot_` is the room that is left inside.
    void axes(const Axis& x, const Axis& y, const QString& x_label, const QString& y_label);
    void xAxis(const Axis& x, const QString& label);
    void yAxis(const Axis& y, const QString& label);
    void triangle(QPointF tip, double size);
    void colorScale(double limit, const QRectF& area);
    double lineHeight() const;
    QPointF at(const Axis& x, double value_x, const Axis& y, double value_y) const;

    QPainter& painter_;
    QFont font_;
    bool dark_;
    bool fresh_ = false;
    double tick_gap_ = 0.3; ///< lines between axis and tick labels: the ▲ need room
    QRectF area_;           ///< what is left of the picture's room
    QRectF plot_;
};

} // namespace rankscope
