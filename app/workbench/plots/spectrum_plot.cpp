// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/spectrum_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"

#include <QCheckBox>
#include <QLabel>
#include <QSignalBlocker>
#include <QSpinBox>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();
constexpr double k_grab_pixels = 8.0;
constexpr int k_big_step = 16;
constexpr int k_mark_pixels = 70;     ///< between two markers of a weighted curve
constexpr double k_log_decades = 8.0; ///< what lies further below the largest value is numerical noise
constexpr double k_summary_energy = 0.9;
constexpr qint64 k_factor_bytes = 2; ///< L and R at 16 bit

QString share_phrase(double share) { return share == 1.0 ? QStringLiteral("100 %") : formatPercent(share); }

} // namespace

SpectrumPlot::SpectrumPlot(QWidget* parent) : PlotView(parent)
{
    buildControls();
    buildGraphs();
    restyle();
    setSpectrum(nullptr, {}, 0, 0);
}

void SpectrumPlot::buildControls()
{
    auto* label = new QLabel(tr("Rank:"), this);
    rank_box_ = new QSpinBox(this);
    rank_box_->setAccessibleName(tr("Rank of L and R"));
    rank_box_->setRange(0, 0);
    rank_box_->setKeyboardTracking(false);
    label->setBuddy(rank_box_);
    relative_box_ = new QCheckBox(tr("Relative to norm"), this);
    relative_box_->setToolTip(tr("Divide by the norm of W, or of W·H^½ (N)"));
    log_rank_box_ = new QCheckBox(tr("Log rank"), this);
    log_rank_box_->setToolTip(tr("Logarithmic rank axis (L)"));
    for (QWidget* widget : {static_cast<QWidget*>(label), static_cast<QWidget*>(rank_box_),
                            static_cast<QWidget*>(relative_box_), static_cast<QWidget*>(log_rank_box_)})
        controls()->addWidget(widget);
    connect(rank_box_, &QSpinBox::valueChanged, this, [this](int rank) {
        moveTo(rank);
        commit();
    });
    connect(relative_box_, &QCheckBox::toggled, this, &SpectrumPlot::setRelative);
    connect(log_rank_box_, &QCheckBox::toggled, this, &SpectrumPlot::setLogRank);
}

void SpectrumPlot::buildGraphs()
{
    for (int i = 0; i < k_series; ++i) {
        QCPGraph* graph = plot()->addGraph();
        graph->setName(name(static_cast<Series>(i)));
        graph->setAdaptiveSampling(false); // pooled already
        graph->setScatterSkip(std::numeric_limits<int>::max()
                              - 1); // the legend's marker; the others are spaced by hand
        curves_[static_cast<std::size_t>(i)].graph = graph;
        QCPGraph* marks = plot()->addGraph();
        marks->setLineStyle(QCPGraph::lsNone);
        marks->setAdaptiveSampling(false);
        curves_[static_cast<std::size_t>(i)].marks = marks;
    }
    for (Curve& curve : others_) {
        curve.graph = plot()->addGraph();
        curve.graph->setAdaptiveSampling(false);
    }
    kept_ = new QCPItemRect(plot());
    kept_->setLayer(cursorLayer());
    kept_->setPen(Qt::NoPen);
    cursor_ = new QCPItemStraightLine(plot());
    cursor_->setLayer(cursorLayer());
    cursor_->setAntialiased(false);
    cursor_label_ = new QCPItemText(plot());
    cursor_label_->setLayer(cursorLayer());
    cursor_label_->position->setTypeX(QCPItemPosition::ptPlotCoords);
    cursor_label_->position->setTypeY(QCPItemPosition::ptAxisRectRatio);
    cursor_label_->setPadding(QMargins(6, 3, 6, 3));
}

QString SpectrumPlot::name(Series series)
{
    switch (series) {
    case Weight:
        return tr("W");
    case Weighted:
        return tr("W·H^½");
    case Residual:
        return tr("W − Q");
    case WeightedResidual:
        return tr("(W − Q)·H^½");
    case k_series:
        break;
    }
    return {};
}

/// Hue and dash say which matrix (W solid, residual dotted), open circles that it is weighted by the
/// activations.
void SpectrumPlot::restyle()
{
    using Token = Theme::Token;
    for (int i = 0; i < k_series; ++i) {
        const bool residual = i == Residual || i == WeightedResidual;
        const bool weighted = i == Weighted || i == WeightedResidual;
        QPen pen(ink(residual ? Token::SeriesResidual : Token::SeriesWeight), 2.0);
        if (residual)
            pen.setDashPattern({1.0, 1.6});
        pen.setCapStyle(Qt::FlatCap);
        Curve& curve = curves_[static_cast<std::size_t>(i)];
        QCPGraph* graph = curve.graph;
        graph->setPen(pen);
        graph->setScatterStyle(weighted ? QCPScatterStyle(QCPScatterStyle::ssCircle, QPen(pen.color(), 1.5),
                                                          QBrush(ink(Token::Base)), 7.0)
                                        : QCPScatterStyle());
        curve.marks->setScatterStyle(graph->scatterStyle());
    }
    for (std::size_t i = 0; i < others_.size(); ++i) {
        QPen pen(ink(Token::SeriesWeight), i == 0 ? 1.5 : 1.0);
        pen.setDashPattern({5.0, 3.0});
        others_[i].graph->setPen(pen);
    }
    QColor veil = ink(Token::SeriesLowRank);
    veil.setAlphaF(paintsDark() ? 0.14F : 0.12F);
    kept_->setBrush(veil);
    cursor_->setPen(QPen(ink(Token::Accent), 2.0));
    cursor_label_->setBrush(ink(Token::Accent));
    cursor_label_->setPen(Qt::NoPen);
    cursor_label_->setColor(ink(Token::Base));
    cursor_label_->setFont(plot()->xAxis->tickLabelFont());
}

const VectorD* SpectrumPlot::values(Series series) const
{
    if (!spectrum_)
        return nullptr;
    const VectorD* all[k_series] = {&spectrum_->weight, &spectrum_->weighted, &spectrum_->residual,
                                    &spectrum_->weighted_residual};
    return all[series]->size() > 0 ? all[series] : nullptr;
}

SpectrumPlot::Series SpectrumPlot::target() const
{
    for (const Series series : {WeightedResidual, Residual, Weighted})
        if (values(series) != nullptr)
            return series;
    return Weight;
}

void SpectrumPlot::setSpectrum(std::shared_ptr<const LayerSpectrum> spectrum, const QString& layer,
                               qint64 out, qint64 in)
{
    spectrum_ = std::move(spectrum);
    layer_ = layer;
    out_ = std::max<qint64>(out, 0);
    in_ = std::max<qint64>(in, 0);
    dragging_ = false;
    uncommitted_ = false;
    const bool has_values = values(Weight) != nullptr || values(Weighted) != nullptr
                            || values(Residual) != nullptr || values(WeightedResidual) != nullptr;
    largest_rank_ = has_values ? static_cast<int>(std::min<qint64>(std::min(out_, in_), 1 << 24)) : 0;
    setHasData(has_values);
    setTitle(layer_.isEmpty() ? QString() : tr("%1: singular values").arg(layer_));
    if (!has_values)
        showMessage(layer_.isEmpty() ? tr("Select a layer to see its singular values.")
                                     : tr("The singular values of %1 are not known yet.").arg(layer_));
    const QSignalBlocker quiet(rank_box_);
    rank_box_->setRange(0, has_values ? largest_rank_ : 0);
    rank_box_->setEnabled(has_values);
    rank_box_->setValue(rank());
    rebuildCurves();
    rebuildRange();
    rebuildCursor();
    rebuildReadout();
}

void SpectrumPlot::rebuildCurves()
{
    const double norms[k_series] = {
        spectrum_ ? spectrum_->weight_norm : 1.0, spectrum_ ? spectrum_->weighted_norm : 1.0,
        spectrum_ ? spectrum_->weight_norm : 1.0, spectrum_ ? spectrum_->weighted_norm : 1.0};
    plot()->legend->clearItems();
    for (int i = 0; i < k_series; ++i) {
        Curve& curve = curves_[static_cast<std::size_t>(i)];
        const VectorD* known = values(static_cast<Series>(i));
        const auto count = known != nullptr ? known->size() : 0;
        const double unit = relative_ && norms[i] > 0.0 ? norms[i] : 1.0;
        QVector<double> drawn(count);
        curve.tails.fill(0.0, known != nullptr ? count + 1 : 0);
        for (Index k = count - 1; k >= 0; --k) {
            const double sigma = (*known)[k];
            drawn[k] = std::isfinite(sigma) && sigma > 0.0 ? sigma / unit : k_nan;
            curve.tails[k] = curve.tails[k + 1] + (std::isfinite(sigma) ? sigma * sigma : 0.0);
        }
        curve.pyramid = MinMaxPyramid(std::move(drawn));
        curve.graph->setVisible(known != nullptr);
        curve.marks->setVisible(known != nullptr);
        if (known != nullptr)
            curve.graph->addToLegend();
        else
            curve.graph->data()->clear();
    }
    rebuildOther();
    replotLater();
}

void SpectrumPlot::rebuildRange()
{
    double low = std::numeric_limits<double>::infinity();
    double high = 0.0;
    QVector<const Curve*> drawn;
    for (const Curve& curve : curves_)
        drawn.append(&curve);
    for (const Curve& curve : others_)
        drawn.append(&curve);
    for (const Curve* shown : std::as_const(drawn)) {
        const Curve& curve = *shown;
        const MinMaxPyramid::Extremes found = curve.pyramid.over(0, curve.pyramid.size());
        if (found.empty())
            continue;
        low = std::min(low, curve.pyramid[found.min_at]);
        high = std::max(high, curve.pyramid[found.max_at]);
    }
    if (!(high > 0.0)) { // nothing positive: an all-zero matrix
        low = 0.1;
        high = 10.0;
    }
    low = std::max(low, high * std::pow(10.0, -k_log_decades));
    const double air = std::max(std::pow(high / low, 0.04), 1.15);
    setAxis(Qt::Horizontal, log_rank_ ? AxisKind::LogWhole : AxisKind::Whole, tr("index i"));
    setAxis(Qt::Vertical, AxisKind::Log,
            relative_ ? tr("singular value σᵢ / norm") : tr("singular value σᵢ"));
    const double end = std::max(largest_rank_, 1);
    setLimits(
        log_rank_ ? 0.4 : std::min(0.0, 0.5 - 0.02 * end), end + std::max(0.5, 0.02 * end), low / air,
        high * std::max(std::pow(high / low, 0.1), 1.3)); // the label of the cursor stands above the curves
}

/// The places of `pyramid` to draw so that each pixel column between the axis' borders has its extremes.
/// Value i of the series stands at x = i + 1; one more on either side closes the line at the border.
QVector<int> SpectrumPlot::drawnPlaces(const MinMaxPyramid& pyramid) const
{
    const QRect inner = plot()->axisRect()->rect();
    const auto place_at = [&](int pixel) {
        const double x = std::clamp(plot()->xAxis->pixelToCoord(pixel), 0.0, pyramid.size() + 1.0);
        return std::clamp(static_cast<int>(std::ceil(x)) - 1, 0, pyramid.size());
    };
    QVector<int> places;
    int from = std::max(place_at(inner.left()) - 1, 0);
    for (int pixel = inner.left() + 1; pixel <= inner.right() + 2; ++pixel) {
        const bool last = pixel == inner.right() + 2;
        const int to = last ? std::min(place_at(pixel) + 1, pyramid.size()) : place_at(pixel);
        places += pyramid.places(from, to, 1);
        from = std::max(from, to);
    }
    return places;
}

void SpectrumPlot::layoutChanged()
{
    for (Curve& curve : curves_) {
        QVector<double> keys, heights, mark_keys, mark_heights;
        double marked_at = -k_mark_pixels;
        for (const int place : drawnPlaces(curve.pyramid)) {
            keys.append(place + 1.0);
            heights.append(curve.pyramid[place]);
            const double x = plot()->xAxis->coordToPixel(place + 1.0);
            if (x - marked_at < k_mark_pixels || !std::isfinite(curve.pyramid[place]))
                continue;
            marked_at = x;
            mark_keys.append(keys.constLast());
            mark_heights.append(heights.constLast());
        }
        curve.graph->setData(keys, heights, true);
        curve.marks->setData(mark_keys, mark_heights, true);
    }
    for (Curve& curve : others_) {
        QVector<double> keys, heights;
        for (const int place : drawnPlaces(curve.pyramid)) {
            keys.append(place + 1.0);
            heights.append(curve.pyramid[place]);
        }
        curve.graph->setData(keys, heights, true);
    }
    rebuildCursor();
}

void SpectrumPlot::setRank(int rank)
{
    rank_ = std::max(rank, 0);
    const QSignalBlocker quiet(rank_box_);
    rank_box_->setValue(this->rank());
    rebuildCursor();
    rebuildReadout();
}

int SpectrumPlot::rank() const { return hasData() ? std::clamp(rank_, 0, largest_rank_) : rank_; }

void SpectrumPlot::moveTo(int wanted)
{
    const int target_rank = std::clamp(wanted, 0, largest_rank_);
    if (!hasData() || target_rank == rank())
        return;
    setRank(target_rank);
    uncommitted_ = true;
    Q_EMIT rankChanged(target_rank);
}

void SpectrumPlot::commit()
{
    if (!uncommitted_)
        return;
    uncommitted_ = false;
    Q_EMIT rankCommitted(rank());
}

void SpectrumPlot::stepRank(int steps)
{
    moveTo(static_cast<int>(std::clamp<qint64>(static_cast<qint64>(rank()) + steps, 0, largest_rank_)));
    commit();
}

void SpectrumPlot::rebuildCursor()
{
    const bool visible = hasData();
    kept_->setVisible(visible);
    cursor_->setVisible(visible);
    cursor_label_->setVisible(visible);
    if (visible) {
        const double x = rank() + 0.5; // between σ_r, kept, and σ_{r+1}
        const QCPRange sight = plot()->xAxis->range();
        const QCPRange heights = plot()->yAxis->range();
        kept_->topLeft->setCoords(std::min(sight.lower, x), heights.upper);
        kept_->bottomRight->setCoords(x, heights.lower);
        cursor_->point1->setCoords(x, heights.lower);
        cursor_->point2->setCoords(x, heights.upper);
        const QRect inner = plot()->axisRect()->rect();
        const bool left = inner.width() > 0 && cursorPixel() > inner.right() - 90;
        cursor_label_->setText(tr("r = %1").arg(rank()));
        cursor_label_->position->setCoords(x, 0.0);
        cursor_label_->setPositionAlignment((left ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignTop);
    }
    replotCursor();
}

double SpectrumPlot::cursorPixel() const { return plot()->xAxis->coordToPixel(rank() + 0.5); }

int SpectrumPlot::rankAt(const QPointF& position) const
{
    const double x = plot()->xAxis->pixelToCoord(position.x());
    return static_cast<int>(std::lround(std::clamp(x - 0.5, 0.0, static_cast<double>(largest_rank_))));
}

qint64 SpectrumPlot::factorBytes(int rank) const
{
    return k_factor_bytes * std::clamp(rank, 0, largest_rank_) * (out_ + in_);
}

double SpectrumPlot::tailShare(Series series, int rank) const
{
    const QVector<double>& tails = curves_[series].tails;
    if (tails.isEmpty())
        return k_nan;
    return tails[0] > 0.0 ? tails[std::clamp<qsizetype>(rank, 0, tails.size() - 1)] / tails[0] : 0.0;
}

double SpectrumPlot::tailEnergy(int rank) const { return tailShare(target(), rank); }

double SpectrumPlot::predictedError(int rank) const
{
    const Series series = target();
    if (!hasData() || (series != Residual && series != WeightedResidual))
        return k_nan;
    const double norm = series == WeightedResidual ? spectrum_->weighted_norm : spectrum_->weight_norm;
    const QVector<double>& tails = curves_[series].tails;
    const double tail = tails[std::clamp<qsizetype>(rank, 0, tails.size() - 1)];
    return norm > 0.0 ? std::sqrt(tail) / norm : tail > 0.0 ? k_nan : 0.0;
}

void SpectrumPlot::rebuildReadout()
{
    if (!hasData()) {
        setReadout({});
        updateDescription();
        return;
    }
    const int r = rank();
    QStringList parts{tr("Rank %1 of %2").arg(r).arg(largest_rank_),
                      tr("tail energy of %1 %2").arg(name(target()), share_phrase(tailEnergy(r))),
                      tr("L and R %1 at 16 bit").arg(formatBytes(factorBytes(r)))};
    const double error = predictedError(r);
    if (std::isfinite(error))
        parts.append(tr("predicted error %1").arg(formatNumber(error)));
    qsizetype broken = 0;
    for (int i = 0; i < k_series; ++i)
        if (const VectorD* known = values(static_cast<Series>(i)))
            broken += std::count_if(known->begin(), known->end(), [](double v) { return !std::isfinite(v); });
    if (broken > 0)
        parts.append(tr("%1 values are NaN or infinity and left out").arg(formatCount(broken)));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    updateDescription();
}

QString SpectrumPlot::summary() const
{
    if (!hasData())
        return PlotView::summary();
    const Series series = values(Weighted) != nullptr ? Weighted
                          : values(Weight) != nullptr ? Weight
                                                      : target();
    const QVector<double>& tails = curves_[series].tails;
    qsizetype reached = 0;
    while (reached + 1 < tails.size() && tails[reached] > (1.0 - k_summary_energy) * tails[0])
        ++reached;
    return tr("Spectrum of %1: %2 of the energy of %3 in %4 of %5 values; rank %6, predicted error %7")
        .arg(layer_, formatPercent(k_summary_energy), name(series))
        .arg(reached)
        .arg(tails.size() - 1)
        .arg(rank())
        .arg(std::isfinite(predictedError(rank())) ? formatNumber(predictedError(rank())) : tr("unknown"));
}

QVector<QStringList> SpectrumPlot::table() const
{
    if (!hasData())
        return {};
    QStringList header{tr("i")};
    Index length = 0;
    for (int i = 0; i < k_series; ++i)
        if (const VectorD* known = values(static_cast<Series>(i))) {
            header.append(name(static_cast<Series>(i)));
            length = std::max(length, known->size());
        }
    header << tr("tail energy after i") << tr("predicted error at rank i") << tr("bytes of L and R");
    QVector<QStringList> rows{header};
    rows.reserve(length + 1);
    for (Index k = 0; k < length; ++k) {
        QStringList row{QString::number(k + 1)};
        for (int i = 0; i < k_series; ++i)
            if (const VectorD* known = values(static_cast<Series>(i)))
                row.append(k < known->size() ? formatExact((*known)[k]) : QString());
        const int r = static_cast<int>(k) + 1;
        row << formatExact(tailEnergy(r)) << formatExact(predictedError(r))
            << QString::number(factorBytes(r));
        rows.append(row);
    }
    addOtherTo(rows);
    return rows;
}

void SpectrumPlot::setRelative(bool relative)
{
    if (relative == relative_)
        return;
    relative_ = relative;
    relative_box_->setChecked(relative);
    rebuildCurves();
    rebuildRange();
}

void SpectrumPlot::setLogRank(bool log)
{
    if (log == log_rank_)
        return;
    log_rank_ = log;
    log_rank_box_->setChecked(log);
    rebuildRange();
}

bool SpectrumPlot::pointerPressed(const QPointF& position)
{
    dragging_ = plot()->axisRect()->rect().adjusted(-8, 0, 8, 0).contains(position.toPoint())
                && std::fabs(position.x() - cursorPixel()) <= k_grab_pixels;
    rank_before_drag_ = rank();
    return dragging_;
}

bool SpectrumPlot::pointerMoved(const QPointF& position, Qt::MouseButtons buttons)
{
    if (dragging_ && buttons.testFlag(Qt::LeftButton)) {
        moveTo(rankAt(position));
        return true;
    }
    const bool near = std::fabs(position.x() - cursorPixel()) <= k_grab_pixels;
    plot()->setCursor(near ? Qt::SplitHCursor : Qt::ArrowCursor);
    return false;
}

bool SpectrumPlot::pointerReleased(const QPointF&)
{
    dragging_ = false;
    commit();
    return true;
}

bool SpectrumPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (orientation == Qt::Vertical)
        return false;
    moveTo(rank() + steps);
    return true;
}

bool SpectrumPlot::leave()
{
    if (!dragging_)
        return false;
    dragging_ = false;
    moveTo(rank_before_drag_);
    uncommitted_ = false;
    return true;
}

QString SpectrumPlot::toolTipAt(const QPointF& position) const
{
    if (!plot()->axisRect()->rect().contains(position.toPoint()))
        return {};
    const auto i = static_cast<int>(std::lround(plot()->xAxis->pixelToCoord(position.x())));
    if (i < 1 || i > largest_rank_)
        return {};
    QStringList lines{tr("i = %1").arg(i)};
    for (int s = 0; s < k_series; ++s)
        if (const VectorD* known = values(static_cast<Series>(s)); known != nullptr && i <= known->size())
            lines.append(tr("%1: %2").arg(name(static_cast<Series>(s)), formatExact((*known)[i - 1])));
    lines.append(tr("tail energy at rank %1: %2").arg(i).arg(share_phrase(tailEnergy(i))));
    return lines.join(QLatin1Char('\n'));
}

void SpectrumPlot::keyPressEvent(QKeyEvent* event)
{
    const int step = event->modifiers() & Qt::ShiftModifier ? k_big_step : 1;
    switch (event->key()) {
    case Qt::Key_BracketLeft:
    case Qt::Key_BraceLeft: // what Shift makes of it on many keyboards
        moveTo(rank() - step);
        return;
    case Qt::Key_BracketRight:
    case Qt::Key_BraceRight:
        moveTo(rank() + step);
        return;
    case Qt::Key_L:
        return setLogRank(!log_rank_);
    case Qt::Key_N:
        return setRelative(!relative_);
    default:
        PlotView::keyPressEvent(event);
    }
}

void SpectrumPlot::keyReleaseEvent(QKeyEvent* event)
{
    if (!event->isAutoRepeat() && !dragging_)
        commit();
    PlotView::keyReleaseEvent(event);
}

void SpectrumPlot::focusOutEvent(QFocusEvent* event)
{
    if (!dragging_)
        commit();
    PlotView::focusOutEvent(event);
}

} // namespace rankscope
