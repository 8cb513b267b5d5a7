// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/channel_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QStandardItemModel>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rankscope {
namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();
constexpr double k_mark_pixels = 7.0; ///< at most one ▲ in as many pixels
constexpr int k_most_listed = 8;
constexpr double k_log_decades = 8.0; ///< what lies further below the largest value is cut off

QString quantity_name(ChannelPlot::Quantity quantity, bool calibrated)
{
    switch (quantity) {
    case ChannelPlot::Quantity::WeightedEnergy:
        return calibrated ? ChannelPlot::tr("weighted energy") : ChannelPlot::tr("weight energy");
    case ChannelPlot::Quantity::HessianDiagonal:
        return ChannelPlot::tr("H diagonal");
    case ChannelPlot::Quantity::ActivationMax:
        return ChannelPlot::tr("activation max");
    case ChannelPlot::Quantity::WeightMax:
        return ChannelPlot::tr("weight max");
    }
    return {};
}

QString axis_name(ChannelPlot::Quantity quantity, bool calibrated)
{
    switch (quantity) {
    case ChannelPlot::Quantity::WeightedEnergy:
        return calibrated ? ChannelPlot::tr("weighted energy  Hⱼⱼ · ‖wⱼ‖²")
                          : ChannelPlot::tr("weight energy  ‖wⱼ‖²");
    case ChannelPlot::Quantity::HessianDiagonal:
        return ChannelPlot::tr("Hⱼⱼ, mean square of the input");
    case ChannelPlot::Quantity::ActivationMax:
        return ChannelPlot::tr("largest |xⱼ|");
    case ChannelPlot::Quantity::WeightMax:
        return ChannelPlot::tr("largest |wᵢⱼ|");
    }
    return {};
}

QString listed(const QVector<int>& channels)
{
    QStringList names;
    for (int i = 0; i < std::min<qsizetype>(channels.size(), k_most_listed); ++i)
        names.append(QString::number(channels[i]));
    if (channels.size() > k_most_listed)
        names.append(QStringLiteral("…"));
    return names.join(QStringLiteral(", "));
}

} // namespace

ChannelPlot::ChannelPlot(QWidget* parent) : PlotView(parent)
{
    buildControls();
    buildGraphs();
    restyle();
    setProfile(nullptr, {});
}

void ChannelPlot::buildControls()
{
    quantity_box_ = new QComboBox(this);
    quantity_box_->setAccessibleName(tr("Quantity per channel"));
    for (const Quantity quantity :
         {Quantity::WeightedEnergy, Quantity::HessianDiagonal, Quantity::ActivationMax, Quantity::WeightMax})
        quantity_box_->addItem(quantity_name(quantity, true));
    rule_box_ = new QComboBox(this);
    rule_box_->setAccessibleName(tr("What counts as an outlier"));
    rule_box_->addItems({tr("above k × median"), tr("largest k")});
    factor_box_ = new QDoubleSpinBox(this);
    factor_box_->setAccessibleName(tr("Threshold in multiples of the median"));
    factor_box_->setRange(0.01, 1e9);
    factor_box_->setDecimals(2);
    factor_box_->setStepType(QAbstractSpinBox::AdaptiveDecimalStepType);
    factor_box_->setLocale(QLocale::c());
    factor_box_->setKeyboardTracking(false);
    factor_box_->setValue(times_median_);
    count_box_ = new QSpinBox(this);
    count_box_->setAccessibleName(tr("Number of outlier channels"));
    count_box_->setRange(0, 1 << 20);
    count_box_->setValue(top_k_);
    count_box_->setKeyboardTracking(false);
    count_box_->hide();
    sorted_box_ = new QCheckBox(tr("Sorted"), this);
    sorted_box_->setToolTip(tr("Largest channel first instead of by channel number"));
    log_box_ = new QCheckBox(tr("Log"), this);
    log_box_->setToolTip(tr("Logarithmic scale (L)"));
    log_box_->setChecked(log_);
    auto* outliers = new QLabel(tr("Outliers:"), this);
    outliers->setBuddy(rule_box_);
    for (QWidget* widget : {static_cast<QWidget*>(quantity_box_), static_cast<QWidget*>(outliers),
                            static_cast<QWidget*>(rule_box_), static_cast<QWidget*>(factor_box_),
                            static_cast<QWidget*>(count_box_), static_cast<QWidget*>(sorted_box_),
                            static_cast<QWidget*>(log_box_)})
        controls()->addWidget(widget);

    connect(quantity_box_, &QComboBox::activated, this,
            [this](int i) { setQuantity(static_cast<Quantity>(i)); });
    connect(rule_box_, &QComboBox::activated, this, [this](int i) { setRule(static_cast<Rule>(i)); });
    connect(factor_box_, &QDoubleSpinBox::valueChanged, this, &ChannelPlot::setTimesMedian);
    connect(count_box_, &QSpinBox::valueChanged, this, &ChannelPlot::setTopK);
    connect(sorted_box_, &QCheckBox::toggled, this, &ChannelPlot::setSorted);
    connect(log_box_, &QCheckBox::toggled, this, &ChannelPlot::setLogScale);
}

void ChannelPlot::buildGraphs()
{
    const auto graph = [this](QCPGraph::LineStyle style, const QString& name) {
        QCPGraph* made = plot()->addGraph();
        made->setLineStyle(style);
        made->setAdaptiveSampling(false); // pooled already, and sampling would pool again
        made->setAntialiased(false);
        made->setName(name);
        return made;
    };
    impulses_ = graph(QCPGraph::lsImpulse, tr("channels"));
    outlier_impulses_ = graph(QCPGraph::lsImpulse, {});
    outlier_marks_ = graph(QCPGraph::lsNone, tr("outliers"));
    outlier_marks_->setAntialiasedScatters(true);
    broken_marks_ = graph(QCPGraph::lsNone, tr("NaN or infinity"));
    broken_marks_->setAntialiasedScatters(true);
    other_line_ = graph(QCPGraph::lsStepCenter, {});
    impulses_->addToLegend();
    outlier_marks_->addToLegend();

    threshold_line_ = new QCPItemStraightLine(plot());
    threshold_line_->setLayer(cursorLayer());
    threshold_line_->setAntialiased(false);
    threshold_label_ = new QCPItemText(plot());
    threshold_label_->setLayer(cursorLayer());
    threshold_label_->position->setTypeX(QCPItemPosition::ptAxisRectRatio);
    threshold_label_->position->setTypeY(QCPItemPosition::ptPlotCoords);
    threshold_label_->setPadding(QMargins(4, 1, 4, 1));
    channel_line_ = new QCPItemStraightLine(plot());
    channel_line_->setLayer(cursorLayer());
    channel_line_->setAntialiased(false);
}

void ChannelPlot::restyle()
{
    using Token = Theme::Token;
    const QColor hot = ink(Token::Outlier);
    impulses_->setPen(QPen(ink(Token::SeriesWeight), 1.0));
    QPen dashed(ink(Token::Text), 1.0);
    dashed.setDashPattern({4.0, 3.0});
    other_line_->setPen(dashed);
    outlier_impulses_->setPen(QPen(hot, 1.0));
    outlier_marks_->setPen(QPen(hot, 1.0));
    outlier_marks_->setScatterStyle(
        QCPScatterStyle(QCPScatterStyle::ssTriangle, QPen(hot, 1.0), QBrush(hot), 8.0));
    broken_marks_->setScatterStyle(
        QCPScatterStyle(QCPScatterStyle::ssCross, QPen(ink(Token::Error), 1.5), Qt::NoBrush, 7.0));
    threshold_line_->setPen(QPen(ink(Token::Text), 1.0, Qt::DashLine));
    QColor ground = ink(Token::Base);
    ground.setAlpha(220);
    threshold_label_->setBrush(ground);
    threshold_label_->setPen(Qt::NoPen);
    threshold_label_->setColor(ink(Token::Text));
    threshold_label_->setFont(plot()->xAxis->tickLabelFont());
    channel_line_->setPen(QPen(ink(Token::Accent), 1.0));
}

void ChannelPlot::setProfile(std::shared_ptr<const ChannelProfile> profile, const QString& layer)
{
    profile_ = std::move(profile);
    layer_ = layer;
    channels_ = profile_ ? static_cast<int>(profile_->weight_max_abs.size()) : 0;
    if (channels_ == 0 && profile_)
        channels_ = static_cast<int>(profile_->weighted_energy.size());
    if (selected_ >= channels_)
        selected_ = -1;
    if (values(quantity_) == nullptr) {
        for (const Quantity other :
             {Quantity::WeightedEnergy, Quantity::WeightMax, Quantity::HessianDiagonal})
            if (values(other) != nullptr) {
                quantity_ = other;
                break;
            }
    }
    if (auto* items = qobject_cast<QStandardItemModel*>(quantity_box_->model())) {
        for (int i = 0; i < items->rowCount(); ++i) {
            const bool known = profile_ == nullptr || values(static_cast<Quantity>(i)) != nullptr;
            items->item(i)->setEnabled(known);
            items->item(i)->setToolTip(known ? QString() : tr("Known after calibration"));
        }
    }
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr || profile_ == nullptr;
    quantity_box_->setItemText(0, quantity_name(Quantity::WeightedEnergy, calibrated));
    quantity_box_->setCurrentIndex(static_cast<int>(quantity_));
    setHasData(values(quantity_) != nullptr);
    if (!hasData())
        showMessage(layer_.isEmpty() ? tr("Select a layer to see its input channels.")
                                     : tr("%1 has no input channels to show.").arg(layer_));
    refresh();
}

const VectorD* ChannelPlot::values(Quantity quantity) const
{
    if (!profile_)
        return nullptr;
    const VectorD* found = nullptr;
    switch (quantity) {
    case Quantity::WeightedEnergy:
        found = &profile_->weighted_energy;
        break;
    case Quantity::HessianDiagonal:
        found = &profile_->hessian_diagonal;
        break;
    case Quantity::ActivationMax:
        found = &profile_->activation_max_abs;
        break;
    case Quantity::WeightMax:
        found = &profile_->weight_max_abs;
        break;
    }
    return found != nullptr && found->size() == channels_ && channels_ > 0 ? found : nullptr;
}

/// Everything that depends on the values, in the order of dependence.
void ChannelPlot::refresh()
{
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr;
    const QString name = quantity_name(quantity_, calibrated);
    setTitle(layer_.isEmpty() ? QString() : tr("%1: %2 per input channel").arg(layer_, name));
    setAxis(Qt::Horizontal, AxisKind::Whole, sorted_ ? tr("channels, largest first") : tr("input channel"));
    setAxis(Qt::Vertical, log_ ? AxisKind::Log : AxisKind::Linear, axis_name(quantity_, calibrated));
    rebuildOrder();
    rebuildOther();
    rebuildRange();
    rebuildOutliers();
}

void ChannelPlot::rebuildOrder()
{
    const VectorD* shown = values(quantity_);
    const int count = shown != nullptr ? channels_ : 0;
    const auto at = [shown](int channel) { return (*shown)[channel]; };
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), 0);
    not_finite_.clear();
    falling_.clear();
    for (int channel = 0; channel < count; ++channel) {
        if (std::isfinite(at(channel)))
            falling_.append(at(channel));
        else
            not_finite_.append(channel);
    }
    std::sort(falling_.begin(), falling_.end(), std::greater<>());
    if (sorted_) {
        std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) {
            const bool a_known = std::isfinite(at(a));
            return a_known != std::isfinite(at(b)) ? a_known : a_known && at(a) > at(b);
        });
    }
    position_.resize(count);
    ordered_.resize(count);
    for (int place = 0; place < count; ++place) {
        position_[order_[place]] = place;
        ordered_[place] = at(order_[place]);
    }
    pyramid_ = MinMaxPyramid(ordered_);

    reference_ = falling_.isEmpty() ? 0.0 : falling_[falling_.size() / 2];
    if (!falling_.isEmpty() && falling_.size() % 2 == 0)
        reference_ = (reference_ + falling_[falling_.size() / 2 - 1]) / 2.0;
    reference_is_mean_ = !(reference_ > 0.0) && !falling_.isEmpty();
    if (reference_is_mean_) // most channels are dead: the median says nothing
        reference_ =
            std::accumulate(falling_.cbegin(), falling_.cend(), 0.0) / static_cast<double>(falling_.size());
    const QSignalBlocker quiet(count_box_);
    count_box_->setMaximum(std::max(channels_, top_k_));
}

double ChannelPlot::threshold() const
{
    if (falling_.isEmpty())
        return k_nan;
    if (rule_ == Rule::TimesMedian)
        return times_median_ * reference_;
    const int count = std::min<int>(top_k_, static_cast<int>(falling_.size()));
    if (count == 0)
        return falling_.constFirst() * 1.05;
    if (count == falling_.size())
        return std::max(falling_.constLast() * 0.95, 0.0);
    const double above = falling_[count - 1];
    const double below = falling_[count];
    return log_ && below > 0.0 ? std::sqrt(above * below) : (above + below) / 2.0;
}

void ChannelPlot::rebuildOutliers()
{
    QVector<int> found;
    if (const VectorD* shown = values(quantity_)) {
        const auto at = [shown](int channel) { return (*shown)[channel]; };
        if (rule_ == Rule::TimesMedian) {
            const double border = threshold();
            for (int channel = 0; channel < channels_; ++channel)
                if (at(channel) > border && std::isfinite(at(channel)))
                    found.append(channel);
        } else {
            // Equal values at the border: the lower channel number goes first, so that k means k.
            QVector<int> best;
            for (int channel = 0; channel < channels_; ++channel)
                if (std::isfinite(at(channel)))
                    best.append(channel);
            const auto count = std::min<qsizetype>(top_k_, best.size());
            std::partial_sort(best.begin(), best.begin() + count, best.end(),
                              [&](int a, int b) { return at(a) != at(b) ? at(a) > at(b) : a < b; });
            found = best.mid(0, count);
            std::sort(found.begin(), found.end());
        }
    }
    is_outlier_.fill(false, channels_);
    for (const int channel : std::as_const(found))
        is_outlier_[channel] = true;
    const bool differs = found != outliers_;
    outliers_ = found;
    rebuildCursor();
    rebuildReadout();
    replotLater();
    if (differs)
        Q_EMIT outliersChanged(outliers_);
}

void ChannelPlot::rebuildRange()
{
    double high = falling_.isEmpty() ? 1.0 : falling_.constFirst();
    if (!(high > 0.0))
        high = 1.0;
    // A threshold above all channels stays in reach of the hand, unless that would flatten the picture.
    const double border = threshold();
    if (rule_ == Rule::TimesMedian && border > high && border < high * (log_ ? 100.0 : 2.0))
        high = border;
    double low = 0.0;
    if (log_) {
        const auto least =
            std::find_if(falling_.crbegin(), falling_.crend(), [](double v) { return v > 0.0; });
        low = least != falling_.crend() ? *least : high;
        low = std::max(low, high * std::pow(10.0, -k_log_decades));
        const double air = std::pow(high / low, 0.08) * 1.1;
        low /= air;
        high *= air * 1.2; // room for ▲
    } else {
        high *= 1.1;
    }
    const double side = 0.5 + 0.01 * channels_; // ▲ of the first and last channel stay whole
    setLimits(-side, std::max(channels_, 1) - 1 + side, low, high);
}

/// Pools to device pixels: each column of the screen shows the largest of its channels, outliers on top.
void ChannelPlot::layoutChanged()
{
    const int width = plot()->axisRect()->width();
    const double ratio = plot()->bufferDevicePixelRatio();
    const QCPRange range = plot()->xAxis->range();
    const int first = std::clamp(static_cast<int>(std::floor(range.lower)), 0, pyramid_.size());
    const int last = std::clamp(static_cast<int>(std::ceil(range.upper)) + 1, first, pyramid_.size());
    const int columns = std::max(1, static_cast<int>(width * ratio));
    const double floor = log_ ? plot()->yAxis->range().lower : 0.0;

    QVector<double> keys, heights, hot_keys, hot_heights, mark_keys, mark_heights, broken_keys,
        broken_heights;
    const double per_mark = (range.size()) * k_mark_pixels / std::max(width, 1);
    for (const int place : pyramid_.places(first, last, columns)) {
        if (!std::isfinite(ordered_[place]))
            continue;
        keys.append(place);
        heights.append(std::max(ordered_[place], floor));
    }
    QVector<int> hot;
    for (const int channel : std::as_const(outliers_))
        if (position_[channel] >= first && position_[channel] < last)
            hot.append(position_[channel]);
    std::sort(hot.begin(), hot.end());
    for (const int place : std::as_const(hot)) {
        hot_keys.append(place);
        hot_heights.append(std::max(ordered_[place], floor));
        if (!mark_keys.isEmpty() && place - mark_keys.constLast() < per_mark) {
            if (ordered_[place] <= mark_heights.constLast())
                continue;
            mark_keys.removeLast();
            mark_heights.removeLast();
        }
        mark_keys.append(place);
        mark_heights.append(hot_heights.constLast());
    }
    for (const int channel : std::as_const(not_finite_)) {
        broken_keys.append(position_[channel]);
        broken_heights.append(plot()->yAxis->pixelToCoord(plot()->axisRect()->bottom() - k_mark_pixels));
    }
    std::sort(broken_keys.begin(), broken_keys.end());
    drawOther(first, last, columns);
    impulses_->setData(keys, heights, true);
    outlier_impulses_->setData(hot_keys, hot_heights, true);
    for (double& height :
         mark_heights) // above the tip, where a wide bar of the same color does not swallow it
        height = plot()->yAxis->pixelToCoord(plot()->yAxis->coordToPixel(height) - k_mark_pixels);
    outlier_marks_->setData(mark_keys, mark_heights, true);
    broken_marks_->setData(broken_keys, broken_heights, true);
    const double pixels = width / std::max(range.size(), 1.0); // per channel
    const double thick =
        pixels * ratio < 2.0 ? 1.0 / ratio : std::min(std::floor(pixels * 0.7 * ratio) / ratio, 12.0);
    QPen pen = impulses_->pen();
    pen.setWidthF(std::max(thick, 1.0 / ratio));
    impulses_->setPen(pen);
    pen = outlier_impulses_->pen();
    pen.setWidthF(std::max({thick, 1.0 / ratio, 1.0}));
    outlier_impulses_->setPen(pen);
    rebuildCursor();
}

void ChannelPlot::rebuildCursor()
{
    const double border = threshold();
    const QCPRange limits = plot()->yAxis->range();
    const bool visible = std::isfinite(border) && hasData() && (!log_ || border > 0.0);
    threshold_line_->setVisible(visible);
    threshold_label_->setVisible(visible);
    if (visible) {
        threshold_line_->point1->setCoords(0.0, border);
        threshold_line_->point2->setCoords(1.0, border);
        const bool high = limits.upper > 0.0 && thresholdPixel() < plot()->axisRect()->top() + 24;
        threshold_label_->position->setCoords(1.0, border);
        threshold_label_->setPositionAlignment(Qt::AlignRight | (high ? Qt::AlignTop : Qt::AlignBottom));
        threshold_label_->setText(rule_ == Rule::TopK
                                      ? tr("largest %1").arg(top_k_)
                                      : tr("%1 × %2").arg(formatNumber(times_median_),
                                                          reference_is_mean_ ? tr("mean") : tr("median")));
    }
    const bool chosen = selected_ >= 0 && selected_ < position_.size();
    channel_line_->setVisible(chosen);
    if (chosen) {
        channel_line_->point1->setCoords(position_[selected_], limits.lower);
        channel_line_->point2->setCoords(position_[selected_], limits.upper);
    }
    replotCursor();
}

void ChannelPlot::rebuildReadout()
{
    if (!hasData()) {
        setReadout({});
        updateDescription();
        return;
    }
    QStringList parts;
    parts.append(summary());
    const double border = threshold();
    if (std::isfinite(border))
        parts.append(rule_ == Rule::TimesMedian
                         ? tr("Threshold %1 (%2 × %3)")
                               .arg(formatNumber(border), formatNumber(times_median_),
                                    reference_is_mean_ ? tr("mean; the median is 0") : tr("median"))
                         : tr("Threshold %1").arg(formatNumber(border)));
    if (!not_finite_.isEmpty())
        parts.append(tr("%1 channels hold NaN or infinity: %2")
                         .arg(formatCount(not_finite_.size()), listed(not_finite_)));
    if (selected_ >= 0 && selected_ < channels_)
        parts.append(channelText(selected_));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    broken_marks_->setVisible(!not_finite_.isEmpty());
    if (not_finite_.isEmpty())
        broken_marks_->removeFromLegend();
    else
        broken_marks_->addToLegend();
    updateDescription();
}

QString ChannelPlot::channelText(int channel) const
{
    QStringList parts;
    parts.append(tr("Channel %1").arg(channel));
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr;
    for (const Quantity quantity :
         {Quantity::WeightedEnergy, Quantity::HessianDiagonal, Quantity::ActivationMax, Quantity::WeightMax})
        if (const VectorD* known = values(quantity))
            parts.append(
                tr("%1 %2").arg(quantity_name(quantity, calibrated), formatNumber((*known)[channel])));
    return parts.join(QStringLiteral(", "));
}

QString ChannelPlot::summary() const
{
    if (!hasData())
        return PlotView::summary();
    const VectorD* energy = values(Quantity::WeightedEnergy);
    const QString count = tr("%1 of %2 channels").arg(outliers_.size()).arg(channels_);
    if (energy == nullptr)
        return tr("%1 are above the threshold").arg(count);
    double all = 0.0;
    double carried = 0.0;
    for (int channel = 0; channel < channels_; ++channel) {
        const double value = (*energy)[channel];
        if (!std::isfinite(value))
            continue;
        all += value;
        if (is_outlier_.value(channel))
            carried += value;
    }
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr;
    const QString sentence = outliers_.size() == 1 ? tr("%1 carries %2 of %3") : tr("%1 carry %2 of %3");
    return sentence.arg(count, formatPercent(all > 0.0 ? carried / all : 0.0),
                        quantity_name(Quantity::WeightedEnergy, calibrated));
}

QVector<QStringList> ChannelPlot::table() const
{
    if (!hasData())
        return {};
    QVector<QStringList> rows;
    rows.reserve(channels_ + 1);
    QStringList header{tr("channel")};
    const std::array quantities = {Quantity::WeightedEnergy, Quantity::HessianDiagonal,
                                   Quantity::ActivationMax, Quantity::WeightMax};
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr;
    for (const Quantity quantity : quantities)
        if (values(quantity) != nullptr)
            header.append(quantity_name(quantity, calibrated));
    header.append(tr("outlier"));
    rows.append(header);
    for (const int channel : order_) {
        QStringList row{QString::number(channel)};
        for (const Quantity quantity : quantities)
            if (const VectorD* known = values(quantity))
                row.append(formatExact((*known)[channel]));
        row.append(is_outlier_[channel] ? tr("yes") : tr("no"));
        rows.append(row);
    }
    addOtherTo(rows);
    return rows;
}

QString ChannelPlot::toolTipAt(const QPointF& position) const
{
    const int channel = channelAt(position);
    if (channel < 0)
        return {};
    QStringList lines{tr("Channel %1").arg(channel)};
    const bool calibrated = values(Quantity::HessianDiagonal) != nullptr;
    for (const Quantity quantity :
         {Quantity::WeightedEnergy, Quantity::HessianDiagonal, Quantity::ActivationMax, Quantity::WeightMax})
        if (const VectorD* known = values(quantity))
            lines.append(
                tr("%1: %2").arg(quantity_name(quantity, calibrated), formatExact((*known)[channel])));
    return lines.join(QLatin1Char('\n'));
}

} // namespace rankscope
