// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// A hand for the plots' tests: shows a view, finds places in it, drags, looks at pixels.
#include "app/workbench/plots/plot_view.h"
#include "app/workbench/plots/qcp.h"

#include <QTest>

namespace rankscope::test {

inline const QString k_layer = QStringLiteral("model.layers.3.mlp.down_proj");

/// A warning of Qt's fails the test, but for what the offscreen platform lacks.
inline void be_strict()
{
    QTest::failOnWarning(QRegularExpression(QStringLiteral("^(?!This plugin does not support).*$")));
}

inline QCustomPlot* canvas(const PlotView& view) { return view.findChild<QCustomPlot*>(); }

inline void show(PlotView& view, const QSize& size = QSize(800, 500))
{
    view.resize(size);
    view.show();
    view.activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(&view));
    view.setFocus();
    canvas(view)->replot();
}

inline QPoint at(const PlotView& view, double x, double y)
{
    return {qRound(canvas(view)->xAxis->coordToPixel(x)), qRound(canvas(view)->yAxis->coordToPixel(y))};
}

inline void drag(PlotView& view, QPoint from, QPoint to)
{
    QCustomPlot* plot = canvas(view);
    QTest::mouseMove(plot, from);
    QTest::mousePress(plot, Qt::LeftButton, Qt::NoModifier, from);
    for (int i = 1; i <= 4; ++i)
        QTest::mouseMove(plot, from + (to - from) * i / 4);
    QTest::mouseRelease(plot, Qt::LeftButton, Qt::NoModifier, to);
}

/// Pixels within `tolerance` columns of `x` and inside the axes that have `color`.
inline int pixels_near(const PlotView& view, int x, int tolerance, const QColor& color)
{
    const QImage picture = canvas(view)->grab().toImage();
    const QRect inner = canvas(view)->axisRect()->rect();
    int found = 0;
    for (int column = x - tolerance; column <= x + tolerance; ++column)
        for (int y = inner.top(); y < inner.bottom(); ++y)
            found += picture.valid(column, y) && picture.pixelColor(column, y).rgb() == color.rgb() ? 1 : 0;
    return found;
}

} // namespace rankscope::test
