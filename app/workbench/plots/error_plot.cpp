// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/error_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr int k_named = 8; ///< traces in the legend
constexpr double k_near_pixels = 12.0;
constexpr std::array k_hues = {Theme::Token::SeriesWeight, Theme::Token::SeriesResidual,
                               Theme::Token::SeriesLowRank, Theme::Token::SeriesQuantized};
constexpr std::array k_shapes = {QCPScatterStyle::ssCircle,
                                 QCPScatterStyle::ssSquare,
                                 QCPScatterStyle::ssDiamond,
                                 QCPScatterStyle::ssTriangle,
                                 QCPScatterStyle::ssTriangleInverted,
                                 QCPScatterStyle::ssCross,
                                 QCPScatterStyle::ssPlus,
                                 QCPScatterStyle::ssStar};

int length(const ErrorTrace& trace)
{
    return static_cast<int>(std::min(trace.steps.size(), trace.errors.size()));
}

bool is_drawable(const ErrorTrace& trace, int i)
{
    return std::isfinite(trace.steps[i]) && std::isfinite(trace.errors[i]) && trace.errors[i] > 0.0;
}

} // namespace

ErrorPlot::ErrorPlot(QWidget* parent) : PlotView(parent)
{
    selection_ = plot()->addGraph();
    selection_->setLayer(cursorLayer());
    selection_->setLineStyle(QCPGraph::lsNone);
    setAxis(Qt::Horizontal, AxisKind::Whole, tr("half-step"));
    setAxis(Qt::Vertical, AxisKind::Log, tr("activation error"));
    restyle();
    setTraces({});
}

bool ErrorPlot::drawable(Point point) const
{
    return point.trace >= 0 && point.trace < traces_.size() && point.index >= 0
           && point.index < length(traces_[point.trace]) && is_drawable(traces_[point.trace], point.index);
}

QString ErrorPlot::traceName(int trace) const
{
    const ErrorTrace& named = traces_[trace];
    const auto same = [](const ErrorTrace& a, QString ErrorTrace::*field, const QVector<ErrorTrace>& all) {
        return std::all_of(all.cbegin(), all.cend(),
                           [&](const ErrorTrace& b) { return a.*field == b.*field; });
    };
    // What is common to all is in the title, the legend says only what differs.
    if (traces_.size() > 1 && same(named, &ErrorTrace::layer, traces_)
        && !same(named, &ErrorTrace::method, traces_))
        return named.method;
    if (traces_.size() > 1 && same(named, &ErrorTrace::method, traces_)
        && !same(named, &ErrorTrace::layer, traces_))
        return named.layer;
    if (traces_.size() == 1 && !named.method.isEmpty()) // the title has the layer
        return named.method;
    return named.layer.isEmpty()    ? named.method
           : named.method.isEmpty() ? named.layer
                                    : QStringLiteral("%1, %2").arg(named.layer, named.method);
}

void ErrorPlot::setTraces(const QVector<ErrorTrace>& traces)
{
    traces_ = traces;
    selected_ = {};
    bool any = false;
    for (int t = 0; t < traces_.size(); ++t)
        for (int i = 0; i < length(traces_[t]); ++i)
            any = any || is_drawable(traces_[t], i);
    setHasData(any);
    if (!any)
        showMessage(traces_.isEmpty()
                        ? tr("No error curves yet. Run a plan with a method that refines in steps.")
                        : tr("The methods of this run left no error curve."));
    QString title = any ? tr("Error by half-step") : QString();
    if (any) {
        const auto uniform = [this](QString ErrorTrace::*field) {
            return std::all_of(traces_.cbegin(), traces_.cend(), [&](const ErrorTrace& trace) {
                return trace.*field == traces_.constFirst().*field;
            });
        };
        if (uniform(&ErrorTrace::layer) && !traces_.constFirst().layer.isEmpty())
            title = tr("%1: error by half-step").arg(traces_.constFirst().layer);
        else if (uniform(&ErrorTrace::method) && !traces_.constFirst().method.isEmpty())
            title = tr("%1: error by half-step").arg(traces_.constFirst().method);
    }
    setTitle(title);
    rebuildGraphs();
    rebuildRange();
    select({});
}

void ErrorPlot::rebuildGraphs()
{
    for (QCPGraph* graph : std::as_const(graphs_))
        plot()->removeGraph(graph);
    graphs_.clear();
    plot()->legend->clearItems();
    for (int t = 0; t < traces_.size(); ++t) {
        QCPGraph* graph = plot()->addGraph();
        graph->setName(traceName(t));
        QVector<double> steps, errors;
        for (int i = 0; i < length(traces_[t]); ++i) {
            if (!std::isfinite(traces_[t].steps[i]))
                continue;
            steps.append(traces_[t].steps[i]);
            errors.append(is_drawable(traces_[t], i) ? traces_[t].errors[i]
                                                     : std::numeric_limits<double>::quiet_NaN());
        }
        graph->setData(steps, errors);
        graphs_.append(graph);
        if (t < k_named)
            graph->addToLegend();
    }
    restyle();
    replotLater();
}

void ErrorPlot::restyle()
{
    using Token = Theme::Token;
    for (int t = 0; t < graphs_.size(); ++t) {
        if (t >= k_named) {
            graphs_[t]->setPen(QPen(ink(Token::Muted), 1.0));
            graphs_[t]->setScatterStyle(QCPScatterStyle());
            continue;
        }
        const auto place = static_cast<std::size_t>(t);
        const QColor hue = ink(k_hues[place % k_hues.size()]);
        QPen pen(hue, 2.0);
        if (place >= k_hues.size())
            pen.setDashPattern({4.0, 2.5});
        pen.setJoinStyle(Qt::RoundJoin);
        graphs_[t]->setPen(pen);
        graphs_[t]->setScatterStyle(QCPScatterStyle(k_shapes[place % k_shapes.size()], QPen(hue, 1.5),
                                                    QBrush(ink(Token::Base)), 8.0));
    }
    if (selection_ != nullptr)
        selection_->setScatterStyle(
            QCPScatterStyle(QCPScatterStyle::ssCircle, QPen(ink(Token::Accent), 2.0), Qt::NoBrush, 15.0));
}

void ErrorPlot::rebuildRange()
{
    double left = std::numeric_limits<double>::infinity();
    double right = -left;
    double low = left;
    double high = 0.0;
    for (const ErrorTrace& trace : std::as_const(traces_)) {
        for (int i = 0; i < length(trace); ++i) {
            if (!is_drawable(trace, i))
                continue;
            left = std::min(left, trace.steps[i]);
            right = std::max(right, trace.steps[i]);
            low = std::min(low, trace.errors[i]);
            high = std::max(high, trace.errors[i]);
        }
    }
    if (!(high > 0.0)) {
        setLimits(0.0, 1.0, 0.01, 1.0);
        return;
    }
    const double side = std::max(0.4, 0.03 * (right - left));
    const double air = std::max(std::pow(high / low, 0.08), 1.05);
    setLimits(left - side, right + side, low / air, high * air);
}

void ErrorPlot::select(Point point)
{
    selected_ = drawable(point) ? point : Point();
    QVector<double> step, error;
    if (drawable(selected_)) {
        step.append(traces_[selected_.trace].steps[selected_.index]);
        error.append(traces_[selected_.trace].errors[selected_.index]);
    }
    selection_->setData(step, error);
    rebuildReadout();
    replotLater();
}

QString ErrorPlot::pointText(Point point) const
{
    const ErrorTrace& trace = traces_[point.trace];
    return tr("%1, half-step %2: %3")
        .arg(traceName(point.trace), formatNumber(trace.steps[point.index]),
             formatNumber(trace.errors[point.index]));
}

void ErrorPlot::rebuildReadout()
{
    if (!hasData()) {
        setReadout({});
        updateDescription();
        return;
    }
    QStringList parts{summary()};
    if (traces_.size() > k_named)
        parts.append(tr("%1 of them drawn thin, without name").arg(traces_.size() - k_named));
    qsizetype left_out = 0;
    for (const ErrorTrace& trace : std::as_const(traces_))
        for (int i = 0; i < length(trace); ++i)
            left_out += is_drawable(trace, i) ? 0 : 1;
    if (left_out > 0)
        parts.append(tr("%1 values are zero, NaN or infinity and left out").arg(left_out));
    if (drawable(selected_))
        parts.append(pointText(selected_));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    updateDescription();
}

QString ErrorPlot::summary() const
{
    if (!hasData())
        return PlotView::summary();
    int best = -1;
    double least = std::numeric_limits<double>::infinity();
    double start = 0.0;
    for (int t = 0; t < traces_.size(); ++t) {
        double first = 0.0;
        double last = 0.0;
        for (int i = 0; i < length(traces_[t]); ++i) {
            if (!is_drawable(traces_[t], i))
                continue;
            first = first > 0.0 ? first : traces_[t].errors[i];
            last = traces_[t].errors[i];
        }
        if (last > 0.0 && last < least) {
            best = t;
            least = last;
            start = first;
        }
    }
    const QString span =
        tr("%1 falls from %2 to %3").arg(traceName(best), formatNumber(start), formatNumber(least));
    const QString flat = tr("%1 stays at %2").arg(traceName(best), formatNumber(least));
    const QString rises =
        tr("%1 goes from %2 to %3").arg(traceName(best), formatNumber(start), formatNumber(least));
    const QString course = least < start ? span : least > start ? rises : flat;
    return traces_.size() == 1 ? course : tr("%1 traces, lowest: %2").arg(traces_.size()).arg(course);
}

QVector<QStringList> ErrorPlot::table() const
{
    if (!hasData())
        return {};
    QVector<QStringList> rows{{tr("layer"), tr("method"), tr("half-step"), tr("relative activation error")}};
    for (const ErrorTrace& trace : traces_)
        for (int i = 0; i < length(trace); ++i)
            rows.append(
                {trace.layer, trace.method, formatExact(trace.steps[i]), formatExact(trace.errors[i])});
    return rows;
}

ErrorPlot::Point ErrorPlot::nearest(const QPointF& position) const
{
    Point best;
    double least = k_near_pixels * k_near_pixels;
    for (int t = 0; t < traces_.size(); ++t) {
        for (int i = 0; i < length(traces_[t]); ++i) {
            if (!is_drawable(traces_[t], i))
                continue;
            const double dx = plot()->xAxis->coordToPixel(traces_[t].steps[i]) - position.x();
            const double dy = plot()->yAxis->coordToPixel(traces_[t].errors[i]) - position.y();
            if (dx * dx + dy * dy < least) {
                least = dx * dx + dy * dy;
                best = {t, i};
            }
        }
    }
    return best;
}

bool ErrorPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    Point point = selected_;
    const int direction = steps > 0 ? 1 : -1;
    if (!drawable(point)) {
        for (int t = 0; t < traces_.size() && !drawable(point); ++t)
            for (int i = 0; i < length(traces_[t]) && !drawable(point); ++i)
                point = {t, i};
        select(point);
        return true;
    }
    for (int left = std::abs(steps); left > 0; --left) {
        Point next = point;
        do {
            if (orientation == Qt::Horizontal)
                next.index += direction;
            else
                next.trace -= direction; // up: the earlier one in the legend
            if (next.trace < 0 || next.trace >= traces_.size())
                break;
            if (orientation == Qt::Vertical)
                next.index = std::min(point.index, length(traces_[next.trace]) - 1);
        } while (!drawable(next) && next.index >= 0 && next.index < length(traces_[next.trace]));
        if (!drawable(next))
            break;
        point = next;
    }
    select(point);
    return true;
}

bool ErrorPlot::leave()
{
    if (!drawable(selected_))
        return false;
    select({});
    return true;
}

void ErrorPlot::pointerClicked(const QPointF& position) { select(nearest(position)); }

QString ErrorPlot::toolTipAt(const QPointF& position) const
{
    const Point point = nearest(position);
    if (!drawable(point))
        return {};
    const ErrorTrace& trace = traces_[point.trace];
    return tr("%1\nhalf-step %2\nrelative activation error %3")
        .arg(traceName(point.trace), formatExact(trace.steps[point.index]),
             formatExact(trace.errors[point.index]));
}

} // namespace rankscope
