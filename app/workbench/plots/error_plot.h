// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/plots/plot_view.h"

namespace rankscope {

/// The error of one layer after each half-step (a new Q, or a new L·R) of an alternating method.
struct ErrorTrace {
    QString layer, method;
    QVector<double> steps,
        errors; ///< of equal length; errors that are not positive are left out of the log axis
};

/// Relative activation error against half-step. Up to eight traces are told apart by colour, dash and marker
/// and named in the legend; further ones are drawn thin and muted. ←/→ walk the points of the nearest trace,
/// ↑/↓ the traces.
class ErrorPlot : public PlotView {
    Q_OBJECT
public:
    explicit ErrorPlot(QWidget* parent = nullptr);

    void setTraces(const QVector<ErrorTrace>& traces);
    const QVector<ErrorTrace>& traces() const { return traces_; }

    QString summary() const override;
    QVector<QStringList> table() const override;

protected:
    void restyle() override;
    bool cursorKey(int steps, Qt::Orientation orientation) override;
    bool leave() override;
    void pointerClicked(const QPointF& position) override;
    QString toolTipAt(const QPointF& position) const override;

private:
    struct Point {
        int trace = -1;
        int index = -1;
    };
    void rebuildGraphs();
    void rebuildRange();
    void rebuildReadout();
    void select(Point point);
    Point nearest(const QPointF& position) const;
    QString pointText(Point point) const;
    QString traceName(int trace) const;
    bool drawable(Point point) const;

    QVector<ErrorTrace> traces_;
    QVector<QCPGraph*> graphs_;
    QCPGraph* selection_ = nullptr;
    Point selected_;
};

} // namespace rankscope
