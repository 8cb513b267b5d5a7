// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrices_plot.h"

#include "app/workbench/plots/number_format.h"

#include <QComboBox>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr Index k_most_table_cells = 250'000;

} // namespace

QStringList LayerMatrices::partIds()
{
    return {QStringLiteral("weight"), QStringLiteral("quantized"), QStringLiteral("low_rank"),
            QStringLiteral("residual")};
}

MatricesPlot::MatricesPlot(QWidget* parent) : MapPlot(LayerMatrices::k_parts, parent)
{
    part_box_ = new QComboBox(this);
    part_box_->setObjectName(QStringLiteral("matrices_part"));
    part_box_->setAccessibleName(tr("Which matrix of both is compared"));
    part_box_->setToolTip(tr("Which matrix of both is compared"));
    part_box_->addItems({tr("compare W"), tr("compare Q"), tr("compare L·R"), tr("compare what is left")});
    part_box_->hide();
    controls()->addWidget(part_box_);
    addColorControls();
    connect(part_box_, &QComboBox::activated, this, [this](int index) {
        compared_ = static_cast<Part>(index);
        Q_EMIT optionsChanged();
    });
    restyle();
    setMatrices(nullptr, {});
}

QString MatricesPlot::name(Part part) const
{
    switch (part) {
    case LayerMatrices::Weight:
        return tr("W");
    case LayerMatrices::Quantized:
        return tr("Q");
    case LayerMatrices::LowRank:
        return tr("L·R");
    case LayerMatrices::Residual: {
        const bool low_rank = matrices_ && matrices_->part(LayerMatrices::LowRank);
        const bool quantized = matrices_ && matrices_->part(LayerMatrices::Quantized);
        return low_rank && quantized ? tr("W − Q − L·R") : low_rank ? tr("W − L·R") : tr("W − Q");
    }
    case LayerMatrices::k_parts:
        break;
    }
    return {};
}

void MatricesPlot::setMatrices(std::shared_ptr<const LayerMatrices> matrices, const QString& layer)
{
    matrices_ = std::move(matrices);
    layer_ = layer;
    const MagnitudePyramid* weight = matrices_ ? matrices_->part(LayerMatrices::Weight) : nullptr;
    setHasData(weight != nullptr);
    other_.reset(); // it belongs to the picture before
    rebuildMaps();
}

void MatricesPlot::setOther(std::shared_ptr<const OtherMatrix> other, const QString& name)
{
    const bool before = !other_name_.isEmpty();
    other_ = std::move(other);
    other_name_ = name;
    const bool now = !other_name_.isEmpty();
    part_box_->setVisible(now);
    if (now && !before) // a difference has a sign
        signed_alone_ = isSigned();
    if (now != before)
        setSigned(now || signed_alone_);
    rebuildMaps();
}

void MatricesPlot::rebuildTitle()
{
    const MagnitudePyramid* weight = matrices_ ? matrices_->part(LayerMatrices::Weight) : nullptr;
    if (layer_.isEmpty() || !weight)
        return setTitle(layer_);
    const QString made = matrices_->from_run ? tr("as in the run") : tr("nearest rounding, as planned");
    const bool weights_only = !other_name_.isEmpty() && compared_ == LayerMatrices::Weight;
    const QString shape =
        tr("%1: %2 outputs × %3 inputs").arg(layer_).arg(weight->rows()).arg(weight->cols());
    setTitle(weights_only ? shape : tr("%1, %2").arg(shape, made));
}

void MatricesPlot::rebuildMaps()
{
    rebuildTitle();
    std::vector<Map> maps;
    if (matrices_ && other_) {
        const QString drawn = name(other_->part);
        maps = {{tr("%1 of A").arg(drawn), matrices_->parts[other_->part]},
                {tr("%1 of B: %2").arg(drawn, other_name_), other_->values},
                {tr("B − A"), other_->difference}};
        if (!other_->difference) // of another shape: it cannot lie beside A
            maps.resize(1);
    } else if (matrices_ && !other_name_.isEmpty()) { // B is under way, or has no such layer
        maps = {{tr("%1 of A").arg(name(compared_)), matrices_->parts[compared_]}};
    } else if (matrices_) {
        for (int part = 0; part < LayerMatrices::k_parts; ++part)
            maps.push_back({name(static_cast<Part>(part)), matrices_->parts[static_cast<std::size_t>(part)]});
    }
    setMaps(maps);
}

void MatricesPlot::setAxes(bool narrow)
{
    setAxis(Qt::Horizontal, AxisKind::Whole, narrow ? QString() : tr("input channel"));
    setAxis(Qt::Vertical, AxisKind::Whole, narrow ? QString() : tr("output channel"));
}

QString MatricesPlot::valueName(bool is_signed) const { return is_signed ? tr("value") : tr("magnitude"); }

QVariantMap MatricesPlot::compareOptions() const
{
    return {{QStringLiteral("part"), LayerMatrices::partIds().at(compared_)}};
}

void MatricesPlot::setOptions(const QVariantMap& options)
{
    const auto part = LayerMatrices::partIds().indexOf(options.value(QStringLiteral("part")).toString());
    compared_ = part < 0 ? LayerMatrices::Weight : static_cast<Part>(part);
    part_box_->setCurrentIndex(compared_);
}

QString MatricesPlot::cellText(Index row, Index col) const
{
    QStringList parts;
    for (const Map& map : maps())
        parts.append(tr("%1 %2").arg(map.name, formatNumber((*map.values)(row, col))));
    return tr("Output %1, input %2: %3").arg(row).arg(col).arg(parts.join(QStringLiteral(", ")));
}

void MatricesPlot::rebuildReadout()
{
    QStringList parts = mapTexts();
    if (other_ && !other_->difference)
        parts.append(other_->values
                         ? tr("B has %1 outputs × %2 inputs: only A is drawn")
                               .arg(other_->values->rows())
                               .arg(other_->values->cols())
                         : tr("one of both has no %1: there is nothing to compare").arg(name(other_->part)));
    if (!maps().empty() && row() >= 0 && column() >= 0)
        parts.append(cellText(row(), column()));
    else if (!maps().empty() && column() >= 0)
        parts.append(tr("Channel %1 is framed").arg(column()));
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
    if (maps().empty())
        return {};
    const auto span = [](const QCPRange& range, Index count) {
        const Index first =
            std::clamp<Index>(static_cast<Index>(std::floor(range.lower + 0.5)), 0, count - 1);
        return std::pair(
            first, std::clamp<Index>(static_cast<Index>(std::ceil(range.upper + 0.5)), first + 1, count));
    };
    const auto [top, bottom] = span(plot()->yAxis->range(), rowCount());
    const auto [left, right] = span(plot()->xAxis->range(), columnCount());
    int level = 0;
    while (((bottom - top) >> level) * ((right - left) >> level) * panelCount() > k_most_table_cells)
        ++level;
    QStringList header{level == 0 ? tr("output") : tr("outputs from"),
                       level == 0 ? tr("input") : tr("inputs from")};
    for (const Map& map : maps())
        header.append(level == 0 ? map.name : tr("strongest of %1").arg(map.name));
    QVector<QStringList> rows{header};
    for (Index row = top >> level; row <= (bottom - 1) >> level; ++row) {
        for (Index col = left >> level; col <= (right - 1) >> level; ++col) {
            QStringList line{QString::number(row << level), QString::number(col << level)};
            for (const Map& map : maps())
                line.append(formatExact(static_cast<double>(map.values->level(level)(row, col))));
            rows.append(line);
        }
    }
    return rows;
}

} // namespace rankscope
