// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/qcp.h"

namespace rankscope {

/// A quantization grid on the horizontal axis of a histogram: a tick for each level, the dead zone and what
/// is clipped as shaded bands with their names on top.
class GridMarks : public QCPAbstractItem {
public:
    explicit GridMarks(QCustomPlot* plot) : QCPAbstractItem(plot) {}

    struct Band {
        double low = 0.0; ///< may be infinite: to the edge
        double high = 0.0;
        QString label; ///< left out where it does not fit
        bool hatched = false;
    };
    void setGrid(const QVector<double>& levels, const QVector<Band>& bands);
    void setColors(const QColor& tick, const QColor& band, const QColor& text, const QColor& base);
    void setLabelFont(const QFont& font) { font_ = font; }

    double selectTest(const QPointF&, bool, QVariant*) const override { return -1.0; }

protected:
    void draw(QCPPainter* painter) override;

private:
    void drawBand(QCPPainter* painter, const QRectF& inside, const Band& band) const;

    QVector<double> levels_;
    QVector<Band> bands_;
    QColor tick_, band_, text_, base_;
    QFont font_;
};

} // namespace rankscope
