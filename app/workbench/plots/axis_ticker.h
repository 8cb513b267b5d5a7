// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/qcp.h"

namespace rankscope {

/// Ticks that people expect: whole numbers on counting axes, 1–2–5 within the decades of a log axis while
/// there is room for them, and one notation along an axis (plain, or powers of ten where plain grows long).
class AxisTicker : public QCPAxisTicker {
public:
    AxisTicker(bool logarithmic, bool whole) : logarithmic_(logarithmic), whole_(whole) {}

    /// Room for labels along the axis in pixels; 0: unknown.
    void setLength(int pixels) { length_ = pixels; }

protected:
    double getTickStep(const QCPRange& range) override;
    int getSubTickCount(double step) override;
    QVector<double> createTickVector(double step, const QCPRange& range) override;
    QVector<double> createSubTickVector(int count, const QVector<double>& ticks) override;
    QString getTickLabel(double tick, const QLocale& locale, QChar format, int precision) override;

private:
    QVector<double> logTicks(const QCPRange& range);

    bool logarithmic_;
    bool whole_; ///< counts: nothing between whole numbers, nothing below 1 on a log axis
    int length_ = 0;
    bool powers_ = false;
    bool decades_ = false; ///< the ticks at hand are those of decades
    int stride_ = 1;       ///< decades between labelled ticks
};

} // namespace rankscope
