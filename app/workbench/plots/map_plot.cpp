// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/map_plot.h"

#include "app/workbench/plots/number_format.h"

#include <QCheckBox>
#include <QComboBox>
#include <QKeyEvent>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_decades = 3.0;     ///< of the magnitudes' scale
constexpr double k_clip_factor = 4.0; ///< RMS at which a clipped scale ends
constexpr int k_narrow = 640;         ///< pixels below which panels take two lines

} // namespace

MapPlot::MapPlot(int most_panels, QWidget* parent) : PlotView(parent)
{
    setZoomsBothAxes(true);
    buildPanels(most_panels);
}

/// Panels out of sight are in no layout that would end them in time.
MapPlot::~MapPlot()
{
    for (Panel& panel : panels_) {
        if (panel.rect->layout() == nullptr)
            delete panel.rect;
        if (panel.title->layout() == nullptr)
            delete panel.title;
    }
}

void MapPlot::addColorControls()
{
    colors_box_ = new QComboBox(this);
    colors_box_->setAccessibleName(tr("What colors mean"));
    colors_box_->addItems({tr("magnitude, logarithmic"), tr("value, linear")});
    shared_box_ = new QCheckBox(tr("One scale"), this);
    shared_box_->setChecked(true);
    shared_box_->setToolTip(tr("The same color means the same value in all panels (N)"));
    clipped_box_ = new QCheckBox(tr("Clip"), this);
    clipped_box_->setToolTip(
        tr("Colors end at %1 × RMS: larger values look alike, smaller ones differ more (C)")
            .arg(k_clip_factor));
    for (QWidget* widget : {static_cast<QWidget*>(colors_box_), static_cast<QWidget*>(shared_box_),
                            static_cast<QWidget*>(clipped_box_)})
        controls()->addWidget(widget);
    connect(colors_box_, &QComboBox::activated, this, [this](int index) { setSigned(index == 1); });
    connect(shared_box_, &QCheckBox::toggled, this, &MapPlot::setShared);
    connect(clipped_box_, &QCheckBox::toggled, this, &MapPlot::setClipped);
}

/// The axis rect that every plot has becomes the first in a grid of their own.
void MapPlot::buildPanels(int count)
{
    QCPLayoutGrid* outer = plot()->plotLayout();
    int row = 0;
    for (int i = 0; i < outer->rowCount(); ++i)
        if (outer->element(i, 0) == plot()->axisRect())
            row = i;
    QCPAxisRect* first = plot()->axisRect(); // the plot knows it by its place in the layout
    outer->take(first);
    grid_ = new QCPLayoutGrid;
    outer->addElement(row, 0, grid_);
    grid_->addElement(1, 0, first);
    grid_->setColumnSpacing(14); // the last label of one panel and the first of the next stay apart
    grid_->setRowSpacing(0);
    auto* same_height = new QCPMarginGroup(plot());
    for (int i = 0; i < count; ++i) {
        Panel panel;
        panel.rect = i == 0 ? first : new QCPAxisRect(plot());
        panel.title = new QCPTextElement(plot());
        panel.title->setMargins(QMargins(0, 2, 0, 0));
        panel.rect->setMarginGroup(QCP::msTop | QCP::msBottom, same_height);
        panel.rect->setMinimumMargins(QMargins(4, 4, 4, 4));
        for (const QCPAxis::AxisType type : {QCPAxis::atBottom, QCPAxis::atLeft}) {
            QCPAxis* axis = panel.rect->axis(type);
            axis->grid()->setVisible(false);
            axis->setOffset(2); // its line would hide the outermost cells
            axis->setTickLengthIn(0);
            axis->setTickLengthOut(4);
        }
        panel.rect->axis(QCPAxis::atLeft)->setRangeReversed(true);
        if (i > 0) {
            panel.rect->axis(QCPAxis::atLeft)->setTickLabels(false);
            link(panel.rect->axis(QCPAxis::atBottom), plot()->xAxis);
            link(panel.rect->axis(QCPAxis::atLeft), plot()->yAxis);
        }
        buildItems(panel);
        panels_.push_back(panel);
    }
    plot()->legend->setVisible(false);
    scale_ = new QCPColorScale(plot());
    scale_->setType(QCPAxis::atRight);
    scale_->setBarWidth(12);
    scale_->setRangeDrag(false);
    scale_->setRangeZoom(false);
    scale_->setMarginGroup(QCP::msTop | QCP::msBottom, same_height);
}

void MapPlot::buildItems(Panel& panel)
{
    panel.image = new MatrixImage(plot(), panel.rect);
    for (QCPItemRect** item : {&panel.column, &panel.cell}) {
        *item = new QCPItemRect(plot());
        (*item)->setLayer(cursorLayer());
        (*item)->setClipAxisRect(panel.rect);
        (*item)->topLeft->setAxisRect(panel.rect);
        (*item)->bottomRight->setAxisRect(panel.rect);
        for (QCPItemPosition* corner : {(*item)->topLeft, (*item)->bottomRight})
            corner->setAxes(panel.rect->axis(QCPAxis::atBottom), panel.rect->axis(QCPAxis::atLeft));
        (*item)->setBrush(Qt::NoBrush);
    }
}

/// Both show the same range at any time; the limits are the main one's.
void MapPlot::link(QCPAxis* axis, QCPAxis* main)
{
    const auto follow = [](QCPAxis* leader, QCPAxis* follower) {
        connect(leader, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), follower,
                [leader, follower] { follower->setRange(leader->range()); });
    };
    follow(axis, main);
    follow(main, axis);
}

/// Labels make the first panel's margin wider; the cells get the same width in all.
void MapPlot::layoutChanged()
{
    double inner = 0.0;
    int count = 0;
    for (const Panel& panel : panels_) {
        if (panel.rect->layout() == nullptr)
            continue;
        inner += panel.rect->width();
        ++count;
    }
    inner /= std::max(count, 1);
    bool moved = false;
    int place = 0;
    for (const Panel& panel : panels_) {
        if (panel.rect->layout() == nullptr)
            continue;
        moved = moved || std::abs(panel.rect->width() - inner) > 1.5;
        const QMargins margins = panel.rect->margins();
        if (place < per_line_)
            grid_->setColumnStretchFactor(place, std::max(1.0, inner + margins.left() + margins.right()));
        ++place;
    }
    if (moved && inner != equalized_) {
        equalized_ = inner;
        replotLater();
    }
}

int MapPlot::fittingPerLine() const
{
    return panelCount() > 2 && width() < k_narrow ? 2 : static_cast<int>(panels_.size());
}

void MapPlot::resizeEvent(QResizeEvent* event)
{
    PlotView::resizeEvent(event);
    if (fittingPerLine() != per_line_) {
        const QCPRange across = plot()->xAxis->range();
        const QCPRange down = plot()->yAxis->range();
        rebuild();
        plot()->xAxis->setRange(across);
        plot()->yAxis->setRange(down);
    }
}

void MapPlot::restyle()
{
    const QFont small = plot()->xAxis->tickLabelFont();
    for (Panel& panel : panels_) {
        panel.title->setFont(small);
        panel.title->setTextColor(ink(Theme::Token::Text));
        panel.rect->setBackground(QBrush(ink(Theme::Token::Base)));
        for (const QCPAxis::AxisType type : {QCPAxis::atBottom, QCPAxis::atLeft})
            inkAxis(panel.rect->axis(type));
        panel.image->setInks(ink(Theme::Token::Error), small);
        panel.cell->setPen(QPen(ink(Theme::Token::Outlier), 2.0));
        panel.column->setPen(QPen(ink(Theme::Token::Outlier), 1.0, Qt::DashLine));
    }
    inkAxis(scale_->axis());
    rebuildColors();
}

void MapPlot::setMaps(const std::vector<Map>& maps)
{
    const std::pair before(rowCount(), columnCount());
    maps_.clear();
    for (const Map& map : maps)
        if (map.values && !map.values->empty() && maps_.size() < panels_.size())
            maps_.push_back(map);
    if (before != std::pair(rowCount(), columnCount()))
        row_ = -1;
    if (!maps_.empty() && col_ >= columnCount())
        col_ = -1;
    shared_box_->setVisible(panels_.size() > 3 || panelCount() > 1);
    rebuild();
}

void MapPlot::rebuild()
{
    arrangePanels();
    setAxes(per_line_ == 2);
    for (std::size_t i = 1; i < panels_.size(); ++i) {
        panels_[i].rect->axis(QCPAxis::atBottom)->setTicker(plot()->xAxis->ticker());
        panels_[i].rect->axis(QCPAxis::atLeft)->setTicker(plot()->yAxis->ticker());
    }
    setLimits(-0.5, std::max<double>(1.0, static_cast<double>(columnCount())) - 0.5, -0.5,
              std::max<double>(1.0, static_cast<double>(rowCount())) - 0.5);
    for (std::size_t i = 1; i < panels_.size(); ++i) {
        panels_[i].rect->axis(QCPAxis::atBottom)->setRange(plot()->xAxis->range());
        panels_[i].rect->axis(QCPAxis::atLeft)->setRange(plot()->yAxis->range());
    }
    rebuildColors();
    rebuildCursor();
    rebuildReadout();
}

void MapPlot::arrangePanels()
{
    for (QCPLayoutElement* element : grid_->elements(false))
        if (element != nullptr)
            grid_->take(element);
    grid_->simplify();
    per_line_ = fittingPerLine();
    for (std::size_t i = 0; i < panels_.size(); ++i) {
        Panel& panel = panels_[i];
        const bool known = i < maps_.size();
        const bool drawn = known || i == 0; // the first stays, with empty axes
        const bool titled = known && !maps_[i].name.isEmpty();
        panel.image->setMatrix(known ? maps_[i].values : nullptr);
        panel.rect->setVisible(drawn);
        panel.title->setVisible(titled);
        if (!drawn)
            continue;
        const int line = static_cast<int>(i) / per_line_;
        const int column = static_cast<int>(i) % per_line_;
        panel.rect->axis(QCPAxis::atLeft)->setTickLabels(column == 0);
        if (titled)
            grid_->addElement(2 * line, column, panel.title);
        grid_->addElement(2 * line + 1, column, panel.rect);
        grid_->setRowStretchFactor(2 * line, 0.0001);
    }
    const int end = std::clamp(panelCount(), 1, per_line_);
    grid_->addElement(1, end, scale_);
    grid_->setColumnStretchFactor(end, 0.0001);
    equalized_ = 0.0;
}

void MapPlot::rebuildColors()
{
    const auto end_of = [this](const MagnitudePyramid& values) {
        if (!(values.largest() > 0.0))
            return 1.0;
        return clipped_ ? std::min(values.largest(), k_clip_factor * values.rms()) : values.largest();
    };
    double high = maps_.empty() ? 1.0 : end_of(*maps_.front().values);
    for (std::size_t i = 1; i < maps_.size() && !clipped_; ++i)
        if (maps_[i].values->largest() > 0.0)
            high = std::max(high, maps_[i].values->largest());
    const bool shared = shared_ || panelCount() < 2;
    for (std::size_t i = 0; i < maps_.size(); ++i) {
        const double own = shared ? high : end_of(*maps_[i].values);
        panels_[i].image->setColors({signed_, own, k_decades, paintsDark()});
        panels_[i].title->setText(shared ? maps_[i].name
                                         : tr("%1 (scale ends at %2)").arg(maps_[i].name, formatNumber(own)));
    }
    rebuildScale(shared ? high : 1.0);
    scale_->axis()->setLabel(shared ? valueName(signed_)
                                    : tr("%1 / end of each panel's scale").arg(valueName(signed_)));
    replotLater();
}

void MapPlot::rebuildScale(double high)
{
    scale_->setDataScaleType(signed_ ? QCPAxis::stLinear : QCPAxis::stLogarithmic);
    scale_->axis()->setTicker(signed_
                                  ? QSharedPointer<QCPAxisTicker>::create()
                                  : QSharedPointer<QCPAxisTickerLog>::create().staticCast<QCPAxisTicker>());
    scale_->axis()->setNumberFormat(signed_ ? QStringLiteral("gb") : QStringLiteral("eb"));
    scale_->axis()->setNumberPrecision(signed_ ? 3 : 0);
    scale_->setDataRange(QCPRange(signed_ ? -high : high * std::pow(10.0, -k_decades), high));
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 20; ++i)
        gradient.setColorStopAt(i / 20.0, signed_ ? Theme::signedValue(i / 10.0 - 1.0, paintsDark())
                                                  : Theme::magnitude(i / 20.0));
    scale_->setGradient(gradient);
}

void MapPlot::setSigned(bool is_signed)
{
    signed_ = is_signed;
    colors_box_->setCurrentIndex(is_signed ? 1 : 0);
    rebuildColors();
}

void MapPlot::setShared(bool shared)
{
    shared_ = shared;
    shared_box_->setChecked(shared);
    rebuildColors();
}

void MapPlot::setClipped(bool clipped)
{
    clipped_ = clipped;
    clipped_box_->setChecked(clipped);
    rebuildColors();
}

void MapPlot::setSelectedChannel(int channel)
{
    if (channel == col_)
        return;
    col_ = !maps_.empty() && channel >= columnCount() ? -1 : channel;
    row_ = -1;
    rebuildCursor();
    rebuildReadout();
}

void MapPlot::rebuildCursor()
{
    const auto x = static_cast<double>(col_);
    const auto y = static_cast<double>(row_);
    for (std::size_t i = 0; i < panels_.size(); ++i) {
        const Panel& panel = panels_[i];
        panel.column->setVisible(i < maps_.size() && col_ >= 0);
        panel.cell->setVisible(i < maps_.size() && col_ >= 0 && row_ >= 0);
        panel.column->topLeft->setCoords(x - 0.5, -0.5);
        panel.column->bottomRight->setCoords(x + 0.5, static_cast<double>(rowCount()) - 0.5);
        panel.cell->topLeft->setCoords(x - 0.5, y - 0.5);
        panel.cell->bottomRight->setCoords(x + 0.5, y + 0.5);
    }
    replotCursor();
}

QStringList MapPlot::mapTexts() const
{
    QStringList parts;
    for (const Map& map : maps_) {
        parts.append(
            tr("%1: largest %2, RMS %3")
                .arg(map.name, formatNumber(map.values->largest()), formatNumber(map.values->rms())));
        if (map.values->not_finite() > 0)
            parts.append(tr("%1 values of %2 are NaN or infinity (checkered)")
                             .arg(formatCount(static_cast<qint64>(map.values->not_finite())), map.name));
    }
    return parts;
}

void MapPlot::choose(Index row, Index col)
{
    row_ = std::clamp<Index>(row, 0, rowCount() - 1);
    col_ = std::clamp<Index>(col, 0, columnCount() - 1);
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(static_cast<int>(col_));
}

void MapPlot::pointerClicked(const QPointF& position)
{
    for (const Panel& panel : panels_) {
        Index row = 0;
        Index col = 0;
        if (panel.image->cellAt(position, row, col))
            return choose(row, col);
    }
}

QString MapPlot::toolTipAt(const QPointF& position) const
{
    for (const Panel& panel : panels_) {
        Index row = 0;
        Index col = 0;
        if (panel.image->cellAt(position, row, col))
            return cellText(row, col);
    }
    return {};
}

bool MapPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (maps_.empty())
        return false;
    const bool across = orientation == Qt::Horizontal;
    choose(std::max<Index>(row_, 0) - (across ? 0 : steps), std::max<Index>(col_, 0) + (across ? steps : 0));
    return true;
}

bool MapPlot::activateCursor()
{
    if (col_ < 0)
        return false;
    Q_EMIT channelSelected(static_cast<int>(col_));
    return true;
}

bool MapPlot::leave()
{
    if (row_ < 0 && col_ < 0)
        return false;
    row_ = col_ = -1;
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(-1);
    return true;
}

void MapPlot::keyPressEvent(QKeyEvent* event)
{
    if (event->modifiers() == Qt::NoModifier) {
        switch (event->key()) {
        case Qt::Key_N:
            if (shared_box_->isVisible())
                return setShared(!shared_);
            break;
        case Qt::Key_C:
            return setClipped(!clipped_);
        case Qt::Key_L:
            return setSigned(!signed_);
        default:
            break;
        }
    }
    PlotView::keyPressEvent(event);
}

} // namespace rankscope
