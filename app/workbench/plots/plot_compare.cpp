// SPDX-License-Identifier: GPL-3.0-or-later
// The part of the plots that draws the other side of a comparison.
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"
#include "app/workbench/plots/spectrum_plot.h"

#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();

} // namespace

void ChannelPlot::setOther(std::shared_ptr<const ChannelProfile> other, const QString& name)
{
    if (!other && !other_)
        return;
    other_ = std::move(other);
    other_name_ = name;
    refresh();
}

/// What both know, in the order that this one is drawn in.
void ChannelPlot::rebuildOther()
{
    const VectorD* values = nullptr;
    const bool alike = other_ && profile_
                       && (other_->hessian_diagonal.size() > 0) == (profile_->hessian_diagonal.size() > 0);
    if (alike && quantity_ == Quantity::WeightedEnergy) // with and without moments it is another quantity
        values = &other_->weighted_energy;
    else if (other_ && quantity_ == Quantity::HessianDiagonal)
        values = &other_->hessian_diagonal;
    else if (other_ && quantity_ == Quantity::ActivationMax)
        values = &other_->activation_max_abs;
    else if (other_ && quantity_ == Quantity::WeightMax)
        values = &other_->weight_max_abs;
    QVector<double> ordered;
    for (const int channel : std::as_const(order_))
        ordered.append(values && channel < values->size() && std::isfinite((*values)[channel])
                           ? (*values)[channel]
                           : k_nan);
    const bool drawn = values && values->size() > 0;
    other_pyramid_ = drawn ? MinMaxPyramid(std::move(ordered)) : MinMaxPyramid();
    other_line_->setVisible(drawn);
    other_line_->setName(tr("B: %1").arg(other_name_));
    impulses_->setName(drawn ? tr("channels of A") : tr("channels"));
    if (drawn)
        other_line_->addToLegend();
    else
        other_line_->removeFromLegend();
}

void ChannelPlot::drawOther(int first, int last, int columns)
{
    const double floor = log_ ? plot()->yAxis->range().lower : 0.0;
    QVector<double> keys, heights;
    const int end = std::min(last, other_pyramid_.size());
    // Of each pixel only the largest: a line between extremes would fill the picture.
    for (int column = 0; column < columns && first < end; ++column) {
        const int from = first + static_cast<int>(static_cast<qint64>(end - first) * column / columns);
        const int to = first + static_cast<int>(static_cast<qint64>(end - first) * (column + 1) / columns);
        const MinMaxPyramid::Extremes found = other_pyramid_.over(from, to);
        if (found.empty())
            continue;
        keys.append(from == to - 1 ? from : 0.5 * (from + to - 1));
        heights.append(std::max(other_pyramid_[found.max_at], floor));
    }
    other_line_->setData(keys, heights, true);
}

/// Two columns more: the drawn quantity of B, and by how much it differs.
void ChannelPlot::addOtherTo(QVector<QStringList>& rows) const
{
    if (other_pyramid_.size() == 0 || rows.size() != order_.size() + 1)
        return;
    const QString drawn = quantity_box_->currentText();
    rows.first() << tr("%1 of B").arg(drawn) << tr("Δ %1").arg(drawn);
    for (int place = 0; place < order_.size(); ++place)
        rows[place + 1] << formatExact(other_pyramid_[place])
                        << formatExact(other_pyramid_[place] - ordered_[place]);
}

void SpectrumPlot::setOther(std::shared_ptr<const LayerSpectrum> other, const QString& name)
{
    if (!other && !other_)
        return;
    other_ = std::move(other);
    other_name_ = name;
    rebuildCurves();
    rebuildRange();
}

void SpectrumPlot::rebuildOther()
{
    const bool weighted = other_ && values(Weighted) != nullptr;
    const VectorD none;
    const VectorD* sources[2] = {other_ ? &other_->weight : &none, weighted ? &other_->weighted : &none};
    const double norms[2] = {other_ ? other_->weight_norm : 1.0, other_ ? other_->weighted_norm : 1.0};
    for (std::size_t i = 0; i < others_.size(); ++i) {
        QVector<double> drawn;
        const double unit = relative_ && norms[i] > 0.0 ? norms[i] : 1.0;
        for (const double sigma : *sources[i])
            drawn.append(std::isfinite(sigma) && sigma > 0.0 ? sigma / unit : k_nan);
        const bool visible = !drawn.isEmpty();
        others_[i].pyramid = visible ? MinMaxPyramid(std::move(drawn)) : MinMaxPyramid();
        others_[i].graph->setVisible(visible);
        others_[i].graph->setName(tr("%1 of B: %2").arg(name(i == 0 ? Weight : Weighted), other_name_));
        if (visible)
            others_[i].graph->addToLegend();
        else
            others_[i].graph->data()->clear();
    }
}

/// σ of W and of W·H^½ of B, as drawn, and by how much they differ.
void SpectrumPlot::addOtherTo(QVector<QStringList>& rows) const
{
    for (std::size_t i = 0; i < others_.size(); ++i) {
        const MinMaxPyramid& other = others_[i].pyramid;
        const MinMaxPyramid& own = curves_[i].pyramid;
        if (other.size() == 0 || own.size() == 0 || rows.isEmpty())
            continue;
        const QString matrix = name(static_cast<Series>(i));
        rows.first() << tr("%1 of B").arg(matrix) << tr("Δ %1").arg(matrix);
        for (int row = 1; row < rows.size(); ++row) {
            const bool both = row - 1 < other.size() && row - 1 < own.size();
            rows[row] << (row - 1 < other.size() ? formatExact(other[row - 1]) : QString())
                      << (both ? formatExact(other[row - 1] - own[row - 1]) : QString());
        }
    }
}

} // namespace rankscope
