// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrices_plot.h"

#include "app/workbench/plots/number_format.h"

#include <QCheckBox>
#include <QComboBox>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_decades = 3.0;     ///< of the magnitudes' scale
constexpr double k_clip_factor = 4.0; ///< RMS at which a clipped scale ends
constexpr int k_narrow = 640;         ///< pixels below which panels take two lines
constexpr Index k_most_table_cells = 250'000;

} // namespace

MatricesPlot::MatricesPlot(QWidget* parent) : PlotView(parent)
{
    setZoomsBothAxes(true);
    buildControls();
    buildPanels();
    restyle();
    setMatrices(nullptr, {});
}

/// Panels out of sight are in no layout that would end them in time.
MatricesPlot::~MatricesPlot()
{
    for (Panel& panel : panels_) {
        if (panel.rect->layout() == nullptr)
            delete panel.rect;
        if (panel.title->layout() == nullptr)
            delete panel.title;
    }
}

void MatricesPlot::buildControls()
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
    connect(shared_box_, &QCheckBox::toggled, this, &MatricesPlot::setShared);
    connect(clipped_box_, &QCheckBox::toggled, this, &MatricesPlot::setClipped);
}

/// The axis rect that every plot has becomes the first of four in a grid of their own.
void MatricesPlot::buildPanels()
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
    for (int i = 0; i < k_parts; ++i) {
        Panel& panel = panels_[static_cast<std::size_t>(i)];
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
    plot()->legend->setVisible(false);
    scale_ = new QCPColorScale(plot());
    scale_->setType(QCPAxis::atRight);
    scale_->setBarWidth(12);
    scale_->setRangeDrag(false);
    scale_->setRangeZoom(false);
    scale_->setMarginGroup(QCP::msTop | QCP::msBottom, same_height);
}

/// Both show the same range at any time; the limits are the main one's.
void MatricesPlot::link(QCPAxis* axis, QCPAxis* main)
{
    const auto follow = [](QCPAxis* leader, QCPAxis* follower) {
        connect(leader, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), follower,
                [leader, follower] { follower->setRange(leader->range()); });
    };
    follow(axis, main);
    follow(main, axis);
}

/// Labels make the first panel's margin wider; the cells get the same width in all.
void MatricesPlot::layoutChanged()
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

void MatricesPlot::resizeEvent(QResizeEvent* event)
{
    PlotView::resizeEvent(event);
    const int wanted = panelCount() > 2 && width() < k_narrow ? 2 : k_parts;
    if (wanted != per_line_) {
        const QCPRange across = plot()->xAxis->range();
        const QCPRange down = plot()->yAxis->range();
        rebuild();
        plot()->xAxis->setRange(across);
        plot()->yAxis->setRange(down);
    }
}

void MatricesPlot::restyle()
{
    QFont small = plot()->xAxis->tickLabelFont();
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

const MagnitudePyramid* MatricesPlot::matrix(Part part) const
{
    if (!matrices_)
        return nullptr;
    const std::shared_ptr<const MagnitudePyramid>* all[k_parts] = {
        &matrices_->weight, &matrices_->quantized, &matrices_->low_rank, &matrices_->residual};
    return *all[part] && !(*all[part])->empty() ? all[part]->get() : nullptr;
}

QString MatricesPlot::name(Part part) const
{
    switch (part) {
    case Weight:
        return tr("W");
    case Quantized:
        return tr("Q");
    case LowRank:
        return tr("L·R");
    case Residual:
        return matrix(LowRank) && matrix(Quantized) ? tr("W − Q − L·R")
               : matrix(LowRank)                    ? tr("W − L·R")
                                                    : tr("W − Q");
    case k_parts:
        break;
    }
    return {};
}

int MatricesPlot::panelCount() const
{
    int count = 0;
    for (int i = 0; i < k_parts; ++i)
        count += matrix(static_cast<Part>(i)) ? 1 : 0;
    return count;
}

void MatricesPlot::setMatrices(std::shared_ptr<const LayerMatrices> matrices, const QString& layer)
{
    const auto before = matrix(Weight) ? std::pair(matrix(Weight)->rows(), matrix(Weight)->cols())
                                       : std::pair<Index, Index>(0, 0);
    matrices_ = std::move(matrices);
    layer_ = layer;
    const MagnitudePyramid* weight = matrix(Weight);
    setHasData(weight != nullptr);
    const QString made =
        weight && !matrices_->from_run ? tr("nearest rounding, as planned") : tr("as in the run");
    setTitle(layer_.isEmpty() ? QString()
             : weight         ? tr("%1: %2 outputs × %3 inputs, %4")
                            .arg(layer_)
                            .arg(weight->rows())
                            .arg(weight->cols())
                            .arg(made)
                      : layer_);
    if (!weight || before != std::pair(weight->rows(), weight->cols()))
        row_ = -1;
    if (weight && col_ >= weight->cols())
        col_ = -1;
    rebuild();
}

void MatricesPlot::rebuild()
{
    const std::shared_ptr<const MagnitudePyramid> none;
    const std::shared_ptr<const MagnitudePyramid>* all[k_parts] = {
        matrices_ ? &matrices_->weight : &none, matrices_ ? &matrices_->quantized : &none,
        matrices_ ? &matrices_->low_rank : &none, matrices_ ? &matrices_->residual : &none};
    for (QCPLayoutElement* element : grid_->elements(false))
        if (element != nullptr)
            grid_->take(element);
    grid_->simplify();
    per_line_ = panelCount() > 2 && width() < k_narrow ? 2 : k_parts;
    int place = 0;
    for (int i = 0; i < k_parts; ++i) {
        Panel& panel = panels_[static_cast<std::size_t>(i)];
        const bool drawn = i == 0 || matrix(static_cast<Part>(i)) != nullptr;
        panel.image->setMatrix(matrix(static_cast<Part>(i)) ? *all[i] : none);
        panel.rect->setVisible(drawn);
        panel.title->setVisible(drawn);
        panel.title->setText(name(static_cast<Part>(i)));
        if (!drawn)
            continue;
        const int line = place / per_line_;
        const int column = place++ % per_line_;
        panel.rect->axis(QCPAxis::atLeft)->setTickLabels(column == 0);
        grid_->addElement(2 * line, column, panel.title);
        grid_->addElement(2 * line + 1, column, panel.rect);
        grid_->setRowStretchFactor(2 * line, 0.0001);
    }
    const int end = std::min(place, per_line_);
    grid_->addElement(1, end, scale_);
    grid_->setColumnStretchFactor(end, 0.0001);
    equalized_ = 0.0;
    const MagnitudePyramid* weight = matrix(Weight);
    setAxis(Qt::Horizontal, AxisKind::Whole, per_line_ == 2 ? QString() : tr("input channel"));
    setAxis(Qt::Vertical, AxisKind::Whole, per_line_ == 2 ? QString() : tr("output channel"));
    for (int i = 1; i < k_parts; ++i) {
        QCPAxisRect* rect = panels_[static_cast<std::size_t>(i)].rect;
        rect->axis(QCPAxis::atBottom)->setTicker(plot()->xAxis->ticker());
        rect->axis(QCPAxis::atLeft)->setTicker(plot()->yAxis->ticker());
    }
    setLimits(-0.5, weight ? static_cast<double>(weight->cols()) - 0.5 : 0.5, -0.5,
              weight ? static_cast<double>(weight->rows()) - 0.5 : 0.5);
    for (int i = 1; i < k_parts; ++i) {
        QCPAxisRect* rect = panels_[static_cast<std::size_t>(i)].rect;
        rect->axis(QCPAxis::atBottom)->setRange(plot()->xAxis->range());
        rect->axis(QCPAxis::atLeft)->setRange(plot()->yAxis->range());
    }
    rebuildColors();
    rebuildCursor();
    rebuildReadout();
}

void MatricesPlot::rebuildColors()
{
    const auto end_of = [this](const MagnitudePyramid* values) {
        if (!values || !(values->largest() > 0.0))
            return 1.0;
        return clipped_ ? std::min(values->largest(), k_clip_factor * values->rms()) : values->largest();
    };
    double high = end_of(matrix(Weight));
    for (int i = 1; i < k_parts && !clipped_; ++i)
        if (matrix(static_cast<Part>(i)))
            high = std::max(high, end_of(matrix(static_cast<Part>(i))));
    for (int i = 0; i < k_parts; ++i) {
        const double own = shared_ ? high : end_of(matrix(static_cast<Part>(i)));
        panels_[static_cast<std::size_t>(i)].image->setColors({signed_, own, k_decades, paintsDark()});
    }
    const double top = shared_ ? high : 1.0;
    scale_->setDataScaleType(signed_ ? QCPAxis::stLinear : QCPAxis::stLogarithmic);
    scale_->axis()->setTicker(signed_
                                  ? QSharedPointer<QCPAxisTicker>::create()
                                  : QSharedPointer<QCPAxisTickerLog>::create().staticCast<QCPAxisTicker>());
    scale_->axis()->setNumberFormat(signed_ ? QStringLiteral("gb") : QStringLiteral("eb"));
    scale_->axis()->setNumberPrecision(signed_ ? 3 : 0);
    scale_->setDataRange(QCPRange(signed_ ? -top : top * std::pow(10.0, -k_decades), top));
    const QString what = signed_ ? tr("value") : tr("magnitude");
    scale_->axis()->setLabel(shared_ ? what : tr("%1 / end of each panel's scale").arg(what));
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 20; ++i)
        gradient.setColorStopAt(i / 20.0, signed_ ? Theme::signedValue(i / 10.0 - 1.0, paintsDark())
                                                  : Theme::magnitude(i / 20.0));
    scale_->setGradient(gradient);
    replotLater();
}

void MatricesPlot::setSigned(bool is_signed)
{
    signed_ = is_signed;
    colors_box_->setCurrentIndex(is_signed ? 1 : 0);
    rebuildColors();
}

void MatricesPlot::setShared(bool shared)
{
    shared_ = shared;
    shared_box_->setChecked(shared);
    rebuildColors();
}

void MatricesPlot::setClipped(bool clipped)
{
    clipped_ = clipped;
    clipped_box_->setChecked(clipped);
    rebuildColors();
}

void MatricesPlot::setSelectedChannel(int channel)
{
    const MagnitudePyramid* weight = matrix(Weight);
    if (channel == col_)
        return;
    col_ = weight && channel >= weight->cols() ? -1 : channel;
    row_ = -1;
    rebuildCursor();
    rebuildReadout();
}

void MatricesPlot::rebuildCursor()
{
    const MagnitudePyramid* weight = matrix(Weight);
    for (Panel& panel : panels_) {
        const bool drawn = panel.image->matrix() != nullptr;
        panel.column->setVisible(drawn && weight && col_ >= 0);
        panel.cell->setVisible(drawn && weight && col_ >= 0 && row_ >= 0);
        if (!weight)
            continue;
        const auto x = static_cast<double>(col_);
        const auto y = static_cast<double>(row_);
        panel.column->topLeft->setCoords(x - 0.5, -0.5);
        panel.column->bottomRight->setCoords(x + 0.5, static_cast<double>(weight->rows()) - 0.5);
        panel.cell->topLeft->setCoords(x - 0.5, y - 0.5);
        panel.cell->bottomRight->setCoords(x + 0.5, y + 0.5);
    }
    replotCursor();
}

QString MatricesPlot::cellText(Index row, Index col) const
{
    QStringList parts;
    for (int i = 0; i < k_parts; ++i)
        if (const MagnitudePyramid* values = matrix(static_cast<Part>(i)))
            parts.append(tr("%1 %2").arg(name(static_cast<Part>(i)), formatNumber((*values)(row, col))));
    return tr("Output %1, input %2: %3").arg(row).arg(col).arg(parts.join(QStringLiteral(", ")));
}

void MatricesPlot::rebuildReadout()
{
    QStringList parts;
    for (int i = 0; i < k_parts; ++i) {
        const MagnitudePyramid* values = matrix(static_cast<Part>(i));
        if (!values)
            continue;
        parts.append(tr("%1: largest %2, RMS %3")
                         .arg(name(static_cast<Part>(i)), formatNumber(values->largest()),
                              formatNumber(values->rms())));
        if (values->not_finite() > 0)
            parts.append(
                tr("%1 values of %2 are NaN or infinity (checkered)")
                    .arg(formatCount(static_cast<qint64>(values->not_finite())), name(static_cast<Part>(i))));
    }
    if (matrix(Weight) && row_ >= 0 && col_ >= 0)
        parts.append(cellText(row_, col_));
    else if (matrix(Weight) && col_ >= 0)
        parts.append(tr("Channel %1 is framed").arg(col_));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    updateDescription();
}

QString MatricesPlot::summary() const
{
    return hasData() ? tr("Matrices of %1. %2").arg(layer_, readout()) : PlotView::summary();
}

/// The cells in sight; of a large matrix in sight as a whole, the strongest entry of each part of it.
QVector<QStringList> MatricesPlot::table() const
{
    const MagnitudePyramid* weight = matrix(Weight);
    if (!weight)
        return {};
    const auto span = [](const QCPRange& range, Index count) {
        const Index first =
            std::clamp<Index>(static_cast<Index>(std::floor(range.lower + 0.5)), 0, count - 1);
        return std::pair(
            first, std::clamp<Index>(static_cast<Index>(std::ceil(range.upper + 0.5)), first + 1, count));
    };
    const auto [top, bottom] = span(plot()->yAxis->range(), weight->rows());
    const auto [left, right] = span(plot()->xAxis->range(), weight->cols());
    int level = 0;
    while (((bottom - top) >> level) * ((right - left) >> level) * panelCount() > k_most_table_cells)
        ++level;
    QStringList header{level == 0 ? tr("output") : tr("outputs from"),
                       level == 0 ? tr("input") : tr("inputs from")};
    for (int i = 0; i < k_parts; ++i)
        if (matrix(static_cast<Part>(i)))
            header.append(level == 0 ? name(static_cast<Part>(i))
                                     : tr("strongest of %1").arg(name(static_cast<Part>(i))));
    QVector<QStringList> rows{header};
    for (Index row = top >> level; row <= (bottom - 1) >> level; ++row) {
        for (Index col = left >> level; col <= (right - 1) >> level; ++col) {
            QStringList line{QString::number(row << level), QString::number(col << level)};
            for (int i = 0; i < k_parts; ++i)
                if (const MagnitudePyramid* values = matrix(static_cast<Part>(i)))
                    line.append(formatExact(static_cast<double>(values->level(level)(row, col))));
            rows.append(line);
        }
    }
    return rows;
}

void MatricesPlot::choose(Index row, Index col)
{
    const MagnitudePyramid* weight = matrix(Weight);
    row_ = std::clamp<Index>(row, 0, weight->rows() - 1);
    col_ = std::clamp<Index>(col, 0, weight->cols() - 1);
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(static_cast<int>(col_));
}

void MatricesPlot::pointerClicked(const QPointF& position)
{
    for (const Panel& panel : panels_) {
        Index row = 0;
        Index col = 0;
        if (panel.image->cellAt(position, row, col))
            return choose(row, col);
    }
}

QString MatricesPlot::toolTipAt(const QPointF& position) const
{
    for (const Panel& panel : panels_) {
        Index row = 0;
        Index col = 0;
        if (panel.image->cellAt(position, row, col))
            return cellText(row, col);
    }
    return {};
}

bool MatricesPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (!matrix(Weight))
        return false;
    const bool across = orientation == Qt::Horizontal;
    choose(std::max<Index>(row_, 0) - (across ? 0 : steps), std::max<Index>(col_, 0) + (across ? steps : 0));
    return true;
}

bool MatricesPlot::activateCursor()
{
    if (col_ < 0)
        return false;
    Q_EMIT channelSelected(static_cast<int>(col_));
    return true;
}

bool MatricesPlot::leave()
{
    if (row_ < 0 && col_ < 0)
        return false;
    row_ = col_ = -1;
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(-1);
    return true;
}

void MatricesPlot::keyPressEvent(QKeyEvent* event)
{
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_N)
        return setShared(!shared_);
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_C)
        return setClipped(!clipped_);
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_L)
        return setSigned(!signed_);
    PlotView::keyPressEvent(event);
}

} // namespace rankscope
