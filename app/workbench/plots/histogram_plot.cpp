// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/histogram_plot.h"

#include "app/workbench/plots/grid_marks.h"
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

constexpr double k_side = 0.03;          ///< room beside the outermost values, as a share of the axis
constexpr double k_farthest_clip = 0.25; ///< how far beyond the values the grid is still drawn

QString count_of(Index count) { return formatCount(static_cast<qint64>(count)); }

} // namespace

HistogramPlot::HistogramPlot(QWidget* parent) : PlotView(parent)
{
    buildControls();
    marks_ = new GridMarks(plot());
    marks_->setLayer(QStringLiteral("grid")); // below the curves
    for (QCPGraph*& graph : graphs_) {
        graph = plot()->addGraph();
        graph->setLineStyle(QCPGraph::lsStepLeft);
        graph->setAdaptiveSampling(false);
    }
    restyle();
    setHistogram(nullptr, {});
}

void HistogramPlot::buildControls()
{
    const auto spin = [this](const QString& text, const QString& all, const QString& help) {
        auto* label = new QLabel(text, this);
        auto* box = new QSpinBox(this);
        label->setBuddy(box);
        box->setAccessibleName(help);
        box->setToolTip(help);
        box->setRange(-1, -1);
        box->setSpecialValueText(all);
        box->setKeyboardTracking(false);
        controls()->addWidget(label);
        controls()->addWidget(box);
        return box;
    };
    row_box_ = spin(tr("Row:"), tr("all"), tr("One row (output channel) of the matrix, or all (↑ ↓)"));
    group_box_ = spin(tr("Group:"), tr("all"), tr("One group of the row, with its own grid, or all (← →)"));
    const auto check = [this](const QString& text, const QString& help) {
        auto* box = new QCheckBox(text, this);
        box->setToolTip(help);
        controls()->addWidget(box);
        return box;
    };
    steps_box_ =
        check(tr("In steps"), tr("Values in steps of their own group's grid, as its codes count (N)"));
    rotated_box_ =
        check(tr("Rotated"), tr("Also after a rotation by random Hadamard matrices, which some methods "
                                "round in; the grid is then that of the rotated values"));
    log_box_ = check(tr("Log"), tr("Logarithmic shares: rare values are seen (L)"));
    connect(row_box_, &QSpinBox::valueChanged, this, [this](int row) { choose({row, choice_.group}); });
    connect(group_box_, &QSpinBox::valueChanged, this, [this](int group) { choose({choice_.row, group}); });
    connect(steps_box_, &QCheckBox::toggled, this, [this](bool on) {
        steps_ = on;
        Q_EMIT optionsChanged();
    });
    connect(rotated_box_, &QCheckBox::toggled, this, [this](bool on) {
        rotated_ = on;
        Q_EMIT optionsChanged();
    });
    connect(log_box_, &QCheckBox::toggled, this, &HistogramPlot::setLogarithmic);
}

void HistogramPlot::restyle()
{
    using Token = Theme::Token;
    const Token inks[k_curves] = {Token::SeriesWeight, Token::SeriesWeight, Token::SeriesQuantized,
                                  Token::SeriesWeight};
    const QVector<qreal> dashes[k_curves] = {{}, {1.0, 1.6}, {4.0, 2.0}, {5.0, 3.0}};
    for (int i = 0; i < k_curves; ++i) {
        QPen pen(ink(inks[i]), i == Weight ? 2.0 : 1.6);
        if (!dashes[i].isEmpty())
            pen.setDashPattern(dashes[i]);
        graphs_[static_cast<std::size_t>(i)]->setPen(pen);
    }
    QFont small = plot()->xAxis->tickLabelFont();
    marks_->setColors(ink(Token::Text), ink(Token::SeriesQuantized), ink(Token::Text), ink(Token::Base));
    marks_->setLabelFont(small);
}

void HistogramPlot::setHistogram(std::shared_ptr<const LayerHistogram> histogram, const QString& layer)
{
    histogram_ = std::move(histogram);
    layer_ = layer;
    const bool known = histogram_ != nullptr && !histogram_->values.empty();
    setHasData(known);
    setTitle(layer_.isEmpty() ? QString() : tr("%1: values and grid").arg(layer_));
    for (auto [box, last, value] :
         {std::tuple(row_box_, known ? histogram_->rows - 1 : -1, choice_.row),
          std::tuple(group_box_, known ? histogram_->groups - 1 : -1, choice_.group)}) {
        const QSignalBlocker quiet(box);
        box->setEnabled(known);
        box->setMaximum(known ? static_cast<int>(last) : -1);
        box->setValue(static_cast<int>(value));
    }
    if (known) { // a smaller matrix may not have that row
        choice_.row = row_box_->value();
        choice_.group = group_box_->value();
    }
    rotated_box_->setEnabled(known && !histogram_->from_run);
    rebuild();
}

void HistogramPlot::setOther(std::shared_ptr<const LayerHistogram> histogram, const QString& name)
{
    other_ = std::move(histogram);
    other_name_ = name;
    rebuild();
}

QVariantMap HistogramPlot::options() const
{
    return {{QStringLiteral("row"), static_cast<qlonglong>(choice_.row)},
            {QStringLiteral("group"), static_cast<qlonglong>(choice_.group)},
            {QStringLiteral("steps"), steps_},
            {QStringLiteral("rotated"), rotated_}};
}

void HistogramPlot::setOptions(const QVariantMap& options)
{
    choice_.row = options.value(QStringLiteral("row"), -1).toInt();
    choice_.group = options.value(QStringLiteral("group"), -1).toInt();
    steps_ = options.value(QStringLiteral("steps")).toBool();
    rotated_ = options.value(QStringLiteral("rotated")).toBool();
    const QSignalBlocker quiet_steps(steps_box_);
    const QSignalBlocker quiet_rotated(rotated_box_);
    steps_box_->setChecked(steps_);
    rotated_box_->setChecked(rotated_);
}

void HistogramPlot::choose(GroupChoice choice)
{
    if (choice == choice_ || !histogram_)
        return;
    choice_ = {std::clamp<Index>(choice.row, -1, histogram_->rows - 1),
               std::clamp<Index>(choice.group, -1, histogram_->groups - 1)};
    const QSignalBlocker quiet_row(row_box_);
    const QSignalBlocker quiet_group(group_box_);
    row_box_->setValue(static_cast<int>(choice_.row));
    group_box_->setValue(static_cast<int>(choice_.group));
    Q_EMIT optionsChanged();
}

void HistogramPlot::setLogarithmic(bool log)
{
    log_ = log;
    log_box_->setChecked(log);
    rebuild();
}

const ValueHistogram* HistogramPlot::values(Curve curve) const
{
    if (!histogram_)
        return nullptr;
    if (curve == Other)
        return other_ && !other_->values.empty() ? &other_->values.front().histogram : nullptr;
    for (const LayerHistogram::Values& candidate : histogram_->values)
        if (static_cast<int>(candidate.series) == static_cast<int>(curve))
            return &candidate.histogram;
    return nullptr;
}

QString HistogramPlot::name(Curve curve) const
{
    switch (curve) {
    case Weight:
        return values(Other) ? tr("W of A") : tr("W");
    case Rotated:
        return tr("W rotated");
    case Remainder:
        return values(Rotated) ? tr("W rotated − L·R") : tr("W − L·R");
    case Other:
        return tr("W of B: %1").arg(other_name_);
    case k_curves:
        break;
    }
    return {};
}

double HistogramPlot::share(const ValueHistogram& histogram, std::size_t bin) const
{
    if (histogram.values == 0 || !(histogram.bin_width() > 0.0))
        return 0.0;
    const double wide = histogram_->values.front().histogram.bin_width() / histogram.bin_width();
    return 100.0 * wide * static_cast<double>(histogram.counts[bin]) / static_cast<double>(histogram.values);
}

void HistogramPlot::rebuild()
{
    double low = std::numeric_limits<double>::infinity();
    double high = -low;
    double most = 0.0;
    double least = std::numeric_limits<double>::infinity();
    plot()->legend->clearItems();
    for (int i = 0; i < k_curves; ++i) {
        QCPGraph* graph = graphs_[static_cast<std::size_t>(i)];
        const ValueHistogram* drawn = values(static_cast<Curve>(i));
        graph->setVisible(drawn != nullptr);
        graph->setName(name(static_cast<Curve>(i)));
        if (!drawn)
            continue;
        graph->addToLegend();
        low = std::min(low, drawn->low);
        high = std::max(high, drawn->high);
        for (std::size_t bin = 0; bin < drawn->counts.size(); ++bin) {
            most = std::max(most, share(*drawn, bin));
            if (drawn->counts[bin] > 0)
                least = std::min(least, share(*drawn, bin));
        }
    }
    if (!(low < high)) {
        low = -1.0;
        high = 1.0;
    }
    if (histogram_ && !histogram_->fit.levels.empty()) {
        const double far = k_farthest_clip * (high - low);
        const double left = low - far;
        const double right = high + far;
        low = std::min(low, std::max(left, histogram_->fit.clip_low));
        high = std::max(high, std::min(right, histogram_->fit.clip_high));
    }
    const double side = k_side * (high - low);
    if (!(most > 0.0))
        most = 1.0;
    setAxis(Qt::Horizontal, AxisKind::Linear,
            steps_ && histogram_ && histogram_->fit.grids > 0 ? tr("value in steps of its grid")
                                                              : tr("value"));
    setAxis(Qt::Vertical, log_ ? AxisKind::Log : AxisKind::Linear, tr("% of the values, per bin"));
    setLimits(low - side, high + side, log_ ? std::min(least, most / 10.0) * 0.5 : 0.0,
              most * (log_ ? 3.0 : 1.12)); // the bands' names stand above the curves
    rebuildGrid();
    rebuildReadout();
    replotLater();
}

void HistogramPlot::rebuildGrid()
{
    const GridFit none;
    const GridFit& fit = histogram_ ? histogram_->fit : none;
    QVector<GridMarks::Band> bands;
    if (!fit.levels.empty()) {
        constexpr double k_infinite = std::numeric_limits<double>::infinity();
        if (fit.has_dead_zone)
            bands.append({fit.dead_low, fit.dead_high, tr("zero: %1").arg(formatPercent(fit.zeroed)), false});
        const QString clipped = fit.grids == 1 || steps_ ? tr("clipped") : tr("beyond this grid");
        bands.append({-k_infinite, fit.clip_low, clipped, true});
        bands.append({fit.clip_high, k_infinite, clipped, true});
    }
    marks_->setGrid(QVector<double>(fit.levels.begin(), fit.levels.end()), bands);
    marks_->setVisible(!fit.levels.empty());
}

void HistogramPlot::layoutChanged()
{
    for (int i = 0; i < k_curves; ++i) {
        QVector<double> keys, heights;
        if (const ValueHistogram* drawn = values(static_cast<Curve>(i))) {
            const double floor = log_ ? plot()->yAxis->range().lower : 0.0;
            keys.append(drawn->low);
            heights.append(floor);
            for (std::size_t bin = 0; bin < drawn->counts.size(); ++bin) {
                keys.append(drawn->low + static_cast<double>(bin) * drawn->bin_width());
                heights.append(std::max(share(*drawn, bin), floor));
            }
            keys.append(drawn->high);
            heights.append(floor);
        }
        graphs_[static_cast<std::size_t>(i)]->setData(keys, heights, true);
    }
}

void HistogramPlot::rebuildReadout()
{
    if (!hasData()) {
        setReadout({});
        updateDescription();
        return;
    }
    const ValueHistogram& all = histogram_->values.front().histogram;
    QStringList parts{tr("%1 values, %2 to %3, RMS %4")
                          .arg(formatCount(static_cast<qint64>(all.values)), formatNumber(all.minimum),
                               formatNumber(all.maximum), formatNumber(all.rms))};
    for (const Curve curve : {Rotated, Remainder, Other})
        if (const ValueHistogram* drawn = values(curve))
            parts.append(tr("%1: %2 to %3, RMS %4")
                             .arg(name(curve), formatNumber(drawn->minimum), formatNumber(drawn->maximum),
                                  formatNumber(drawn->rms)));
    const GridFit& fit = histogram_->fit;
    if (histogram_->lattice)
        parts.append(tr("E8P lattice: eight weights share a point, so there are no levels to draw"));
    else if (fit.grids > 0)
        parts.append(tr("%1 · %2 become zero, %3 are clipped")
                         .arg(fit.grids == 1
                                  ? tr("Grid of this group: %1 levels, step %2")
                                        .arg(fit.levels.size())
                                        .arg(formatNumber(fit.scale))
                                  : tr("%1 grids of %2 values; drawn is the one with the median step, %3")
                                        .arg(count_of(fit.grids), count_of(histogram_->group_width),
                                             formatNumber(fit.scale)),
                              formatPercent(fit.zeroed), formatPercent(fit.clipped)));
    if (all.not_finite > 0)
        parts.append(tr("%1 values are NaN or infinity and left out")
                         .arg(formatCount(static_cast<qint64>(all.not_finite))));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    updateDescription();
}

QString HistogramPlot::summary() const
{
    return hasData() ? tr("Histogram of %1. %2").arg(layer_, readout()) : PlotView::summary();
}

QVector<QStringList> HistogramPlot::table() const
{
    if (!hasData())
        return {};
    QStringList header{tr("from"), tr("to")};
    const ValueHistogram& first = histogram_->values.front().histogram;
    for (const Curve curve : {Weight, Rotated, Remainder})
        if (values(curve))
            header.append(name(curve));
    QVector<QStringList> rows{header};
    for (std::size_t bin = 0; bin < first.counts.size(); ++bin) {
        const double from = first.low + static_cast<double>(bin) * first.bin_width();
        QStringList row{formatExact(from), formatExact(from + first.bin_width())};
        for (const Curve curve : {Weight, Rotated, Remainder})
            if (const ValueHistogram* drawn = values(curve))
                row.append(QString::number(drawn->counts[bin]));
        rows.append(row);
    }
    if (const ValueHistogram* drawn = values(Other)) { // its bins are others
        rows.first().append(name(Other));
        for (std::size_t bin = 0; bin < drawn->counts.size(); ++bin) {
            const double from = drawn->low + static_cast<double>(bin) * drawn->bin_width();
            QStringList row{formatExact(from), formatExact(from + drawn->bin_width())};
            row.resize(rows.first().size());
            row.last() = QString::number(drawn->counts[bin]);
            rows.append(row);
        }
    }
    return rows;
}

QString HistogramPlot::toolTipAt(const QPointF& position) const
{
    if (!plot()->axisRect()->rect().contains(position.toPoint()))
        return {};
    const double x = plot()->xAxis->pixelToCoord(position.x());
    QStringList lines;
    for (int i = 0; i < k_curves; ++i) {
        const ValueHistogram* drawn = values(static_cast<Curve>(i));
        if (!drawn || x < drawn->low || x > drawn->high)
            continue;
        const auto bin = static_cast<std::size_t>(std::clamp((x - drawn->low) / drawn->bin_width(), 0.0,
                                                             static_cast<double>(drawn->counts.size() - 1)));
        const double from = drawn->low + static_cast<double>(bin) * drawn->bin_width();
        lines.append(tr("%1: %2 values from %3 to %4")
                         .arg(name(static_cast<Curve>(i)),
                              formatCount(static_cast<qint64>(drawn->counts[bin])), formatNumber(from),
                              formatNumber(from + drawn->bin_width())));
    }
    return lines.join(QLatin1Char('\n'));
}

bool HistogramPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (orientation == Qt::Horizontal)
        choose({choice_.row, choice_.group + steps});
    else
        choose({choice_.row - steps, choice_.group});
    return true;
}

bool HistogramPlot::leave()
{
    if (choice_ == GroupChoice{})
        return false;
    choose({});
    return true;
}

void HistogramPlot::keyPressEvent(QKeyEvent* event)
{
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_L)
        return setLogarithmic(!log_);
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_N)
        return steps_box_->toggle();
    PlotView::keyPressEvent(event);
}

} // namespace rankscope
