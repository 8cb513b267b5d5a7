// SPDX-License-Identifier: GPL-3.0-or-later
// The part of ChannelPlot that answers the hand: controls, pointer and keys.
#include "app/workbench/plots/channel_plot.h"

#include "app/workbench/plots/qcp.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QSignalBlocker>
#include <QSpinBox>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_grab_pixels = 8.0;

} // namespace

void ChannelPlot::setQuantity(Quantity quantity)
{
    if (profile_ && values(quantity) == nullptr)
        quantity = quantity_; // not measured: stay
    quantity_ = quantity;
    quantity_box_->setCurrentIndex(static_cast<int>(quantity));
    refresh();
}

void ChannelPlot::setRule(Rule rule)
{
    rule_ = rule;
    rule_box_->setCurrentIndex(static_cast<int>(rule));
    factor_box_->setVisible(rule == Rule::TimesMedian);
    count_box_->setVisible(rule == Rule::TopK);
    rebuildOutliers();
}

void ChannelPlot::setTimesMedian(double factor)
{
    if (!std::isfinite(factor) || factor <= 0.0)
        return;
    times_median_ = factor;
    const QSignalBlocker quiet(factor_box_);
    factor_box_->setValue(factor);
    rebuildOutliers();
}

void ChannelPlot::setTopK(int count)
{
    top_k_ = std::max(count, 0);
    const QSignalBlocker quiet(count_box_);
    count_box_->setMaximum(std::max(channels_, top_k_));
    count_box_->setValue(top_k_);
    rebuildOutliers();
}

void ChannelPlot::setSorted(bool sorted)
{
    if (sorted == sorted_)
        return;
    sorted_ = sorted;
    sorted_box_->setChecked(sorted);
    refresh();
}

void ChannelPlot::setLogScale(bool log)
{
    if (log == log_)
        return;
    log_ = log;
    log_box_->setChecked(log);
    refresh();
}

void ChannelPlot::setSelectedChannel(int channel)
{
    selected_ = channel >= 0 && channel < channels_ ? channel : -1;
    rebuildCursor();
    rebuildReadout();
}

double ChannelPlot::thresholdPixel() const { return plot()->yAxis->coordToPixel(threshold()); }

int ChannelPlot::channelAt(const QPointF& position) const
{
    if (!hasData() || !plot()->axisRect()->rect().contains(position.toPoint()))
        return -1;
    const double from = plot()->xAxis->pixelToCoord(position.x() - 1.0);
    const double to = plot()->xAxis->pixelToCoord(position.x() + 1.0);
    if (to - from <= 1.0) {
        const int place = static_cast<int>(std::lround((from + to) / 2.0));
        return place >= 0 && place < order_.size() ? order_[place] : -1;
    }
    // Many channels under the pointer: the one whose tip is drawn.
    const MinMaxPyramid::Extremes found =
        pyramid_.over(static_cast<int>(std::ceil(from)), static_cast<int>(std::floor(to)) + 1);
    return found.empty() ? -1 : order_[found.max_at];
}

bool ChannelPlot::pointerPressed(const QPointF& position)
{
    dragging_ = threshold_line_->visible() && plot()->axisRect()->rect().contains(position.toPoint())
                && std::fabs(position.y() - thresholdPixel()) <= k_grab_pixels;
    return dragging_;
}

bool ChannelPlot::pointerMoved(const QPointF& position, Qt::MouseButtons buttons)
{
    if (dragging_ && buttons.testFlag(Qt::LeftButton)) {
        dragThresholdTo(plot()->yAxis->pixelToCoord(position.y()));
        return true;
    }
    const bool near = threshold_line_->visible()
                      && std::fabs(position.y() - thresholdPixel()) <= k_grab_pixels
                      && plot()->axisRect()->rect().contains(position.toPoint());
    plot()->setCursor(near ? Qt::SplitVCursor : Qt::ArrowCursor);
    return false;
}

bool ChannelPlot::pointerReleased(const QPointF&)
{
    dragging_ = false;
    return true;
}

void ChannelPlot::dragThresholdTo(double y)
{
    const QCPRange range = plot()->yAxis->range();
    y = std::clamp(y, range.lower, range.upper);
    if (rule_ == Rule::TopK) {
        const auto above =
            std::partition_point(falling_.cbegin(), falling_.cend(), [y](double v) { return v > y; });
        setTopK(static_cast<int>(above - falling_.cbegin()));
    } else if (reference_ > 0.0) {
        setTimesMedian(std::max(y / reference_, factor_box_->minimum()));
    }
}

void ChannelPlot::pointerClicked(const QPointF& position)
{
    const int channel = channelAt(position);
    if (channel < 0)
        return;
    setSelectedChannel(channel);
    Q_EMIT channelSelected(channel);
}

bool ChannelPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (orientation == Qt::Vertical) {
        if (rule_ == Rule::TopK)
            setTopK(std::clamp(top_k_ - steps, 0, channels_)); // up: the line rises, fewer remain
        else
            setTimesMedian(std::clamp(times_median_ * std::pow(1.1, steps), factor_box_->minimum(),
                                      factor_box_->maximum()));
        return true;
    }
    const int last = channels_ - 1;
    const int place =
        selected_ < 0 ? (steps > 0 ? 0 : last) : std::clamp(position_[selected_] + steps, 0, last);
    setSelectedChannel(order_[place]);
    Q_EMIT channelSelected(selected_);
    return true;
}

bool ChannelPlot::activateCursor()
{
    if (selected_ < 0)
        return false;
    Q_EMIT channelSelected(selected_);
    return true;
}

bool ChannelPlot::leave()
{
    if (selected_ < 0)
        return false;
    setSelectedChannel(-1);
    return true;
}

void ChannelPlot::keyPressEvent(QKeyEvent* event)
{
    if (event->key() == Qt::Key_L && event->modifiers() == Qt::NoModifier)
        return setLogScale(!log_);
    PlotView::keyPressEvent(event);
}

} // namespace rankscope
