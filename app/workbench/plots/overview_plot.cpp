// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/overview_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"

#include <QCheckBox>
#include <QComboBox>
#include <QLabel>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rankscope {
namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();
constexpr double k_factor = 8.0;       ///< medians above which a channel counts as an outlier, as in Channels
constexpr double k_share = 0.5;        ///< of the rows in which a persistent one is
constexpr double k_most_decades = 4.0; ///< what lies further below the largest value is as dark as can be
constexpr double k_below_median = 4.0;
constexpr int k_most_labels = 12;
constexpr int k_most_listed = 8;

bool belongs(LinearRole role, OverviewPlot::Inputs inputs)
{
    switch (role) {
    case LinearRole::Output:
        return inputs == OverviewPlot::Inputs::AttentionOutput;
    case LinearRole::Down:
        return inputs == OverviewPlot::Inputs::Down;
    default:
        return inputs == OverviewPlot::Inputs::Residual;
    }
}

QString quantityName(OverviewPlot::Quantity quantity, bool normalised)
{
    const QString name = quantity == OverviewPlot::Quantity::ActivationMax ? OverviewPlot::tr("largest |xⱼ|")
                                                                           : OverviewPlot::tr("RMS of xⱼ");
    return normalised ? OverviewPlot::tr("%1 / median of the row").arg(name) : name;
}

} // namespace

OverviewPlot::OverviewPlot(QWidget* parent) : PlotView(parent)
{
    buildControls();
    buildItems();
    restyle();
    setMap(nullptr);
}

void OverviewPlot::buildControls()
{
    quantity_box_ = new QComboBox(this);
    quantity_box_->setAccessibleName(tr("Quantity of each channel"));
    quantity_box_->addItems({tr("activation max"), tr("activation RMS")});
    inputs_box_ = new QComboBox(this);
    inputs_box_->setAccessibleName(tr("Which inputs are shown"));
    inputs_box_->addItems({tr("attention and MLP inputs"), tr("inputs of o"), tr("inputs of down")});
    normalised_box_ = new QCheckBox(tr("Normalize rows"), this);
    normalised_box_->setToolTip(tr("Each row in multiples of its own median"));
    for (QWidget* widget : {static_cast<QWidget*>(quantity_box_), static_cast<QWidget*>(inputs_box_),
                            static_cast<QWidget*>(normalised_box_)})
        controls()->addWidget(widget);
    connect(quantity_box_, &QComboBox::activated, this,
            [this](int index) { setQuantity(static_cast<Quantity>(index)); });
    connect(inputs_box_, &QComboBox::activated, this,
            [this](int index) { setInputs(static_cast<Inputs>(index)); });
    connect(normalised_box_, &QCheckBox::toggled, this, &OverviewPlot::setNormalised);
}

void OverviewPlot::buildItems()
{
    picture_ = new QCPItemPixmap(plot());
    picture_->setScaled(true, Qt::IgnoreAspectRatio, Qt::FastTransformation);
    cursor_ = new QCPItemRect(plot());
    cursor_->setLayer(cursorLayer());
    cursor_->setBrush(Qt::NoBrush);
    plot()->legend->setVisible(false);
    plot()->axisRect()->setRangeDrag(Qt::Horizontal);
    plot()->xAxis->grid()->setVisible(false);
    plot()->yAxis->grid()->setVisible(false);

    scale_ = addColorScale();
    scale_->setDataScaleType(QCPAxis::stLogarithmic);
    scale_->axis()->setTicker(QSharedPointer<QCPAxisTickerLog>::create());
    scale_->axis()->setNumberPrecision(0);
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 10; ++i)
        gradient.setColorStopAt(i / 10.0, Theme::magnitude(i / 10.0));
    scale_->setGradient(gradient);
}

void OverviewPlot::restyle()
{
    cursor_->setPen(QPen(ink(Theme::Token::Outlier), 2.0));
    inkAxis(scale_->axis());
    rebuildCursor();
}

void OverviewPlot::setMap(std::shared_ptr<const ChannelMap> map)
{
    map_ = std::move(map);
    rebuild();
}

void OverviewPlot::setQuantity(Quantity quantity)
{
    quantity_ = quantity;
    quantity_box_->setCurrentIndex(static_cast<int>(quantity));
    rebuild();
}

void OverviewPlot::setInputs(Inputs inputs)
{
    inputs_ = inputs;
    inputs_box_->setCurrentIndex(static_cast<int>(inputs));
    rebuild();
}

void OverviewPlot::setNormalised(bool normalised)
{
    normalised_ = normalised;
    normalised_box_->setChecked(normalised);
    rebuild();
}

/// Rows, scale, axes and readout; the picture itself follows with the layout.
void OverviewPlot::rebuild()
{
    rows_.clear();
    channels_ = 0;
    persistent_.clear();
    if (map_) {
        for (const ChannelMap::Row& row : map_->rows) {
            if (!belongs(row.role, inputs_))
                continue;
            rows_.push_back(&row);
            channels_ = std::max(channels_, static_cast<int>(row.rms.size()));
        }
    }
    std::vector<const VectorD*> alike;
    for (const ChannelMap::Row* row : rows_) {
        const VectorD& values = quantity_ == Quantity::ActivationMax ? row->max_abs : row->rms;
        if (values.size() == channels_)
            alike.push_back(&values);
    }
    for (const Index channel : persistent_channels(alike, k_factor, k_share))
        persistent_.append(static_cast<int>(channel));
    rebuildScale();

    setHasData(!rows_.empty());
    setTitle(rows_.empty() ? QString()
                           : tr("%1 of %2, by block")
                                 .arg(quantityName(quantity_, normalised_),
                                      inputs_box_->itemText(static_cast<int>(inputs_))));
    setAxis(Qt::Horizontal, AxisKind::Whole, tr("input channel"));
    setAxis(Qt::Vertical, AxisKind::Whole, tr("block"));
    const auto ticker = QSharedPointer<QCPAxisTickerText>::create();
    int step = 1; // of blocks: 1, 2, 5, 10 …
    for (int i = 0; !rows_.empty() && rows_.back()->block / step > k_most_labels; ++i)
        step = step * (i % 3 == 1 ? 5 : 4) / 2;
    int labelled = -1;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const int block = rows_[i]->block;
        if (block == labelled || block % step != 0)
            continue;
        labelled = block;
        ticker->addTick(static_cast<double>(i) + 0.5, QString::number(block));
    }
    plot()->yAxis->setTicker(ticker);
    setLimits(-0.5, std::max(channels_, 1) - 0.5, 0.0,
              std::max<double>(1.0, static_cast<double>(rows_.size())));
    QStringList names;
    for (const int channel : std::as_const(persistent_)) {
        if (names.size() == k_most_listed) {
            names.append(QStringLiteral("…"));
            break;
        }
        names.append(QString::number(channel));
    }
    setReadout(rows_.empty() ? QString()
               : persistent_.isEmpty()
                   ? tr("No channel is above %1 × the median of its row in half of the rows").arg(k_factor)
                   : tr("%n channel(s) above %1 × the median in at least half of the rows: %2", nullptr,
                        static_cast<int>(persistent_.size()))
                         .arg(k_factor)
                         .arg(names.join(QStringLiteral(", "))));
    rebuildCursor();
    updateDescription();
    replotLater();
}

/// Logarithmic, from well below the calmest row's middle to the largest value: a few channels that carry next
/// to nothing would else take most of the colors.
void OverviewPlot::rebuildScale()
{
    medians_.assign(rows_.size(), 1.0);
    for (std::size_t i = 0; normalised_ && i < rows_.size(); ++i) {
        const double median =
            quantity_ == Quantity::ActivationMax ? rows_[i]->median_max_abs : rows_[i]->median_rms;
        medians_[i] = median > 0.0 ? median : 1.0;
    }
    low_ = std::numeric_limits<double>::infinity();
    high_ = 0.0;
    for (int row = 0; row < rowCount(); ++row) {
        for (int channel = 0; channel < channels_; ++channel) {
            const double here = value(row, channel);
            if (!std::isfinite(here) || here <= 0.0)
                continue;
            low_ = std::min(low_, here);
            high_ = std::max(high_, here);
        }
    }
    if (!(high_ > 0.0))
        low_ = high_ = 1.0;
    double calmest = high_;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const double median =
            quantity_ == Quantity::ActivationMax ? rows_[i]->median_max_abs : rows_[i]->median_rms;
        if (median > 0.0)
            calmest = std::min(calmest, median / medians_[i]);
    }
    low_ = std::max({low_, high_ * std::pow(10.0, -k_most_decades), calmest / k_below_median});
    if (!(low_ < high_))
        low_ = high_ / 10.0;
    scale_->setDataRange(QCPRange(low_, high_));
    scale_->axis()->setLabel(quantityName(quantity_, normalised_));
}

double OverviewPlot::value(int row, int channel) const
{
    const ChannelMap::Row& shown = *rows_[static_cast<std::size_t>(row)];
    const VectorD& values = quantity_ == Quantity::ActivationMax ? shown.max_abs : shown.rms;
    return channel < values.size() ? values[channel] / medians_[static_cast<std::size_t>(row)] : k_nan;
}

double OverviewPlot::shareOf(double value) const
{
    return value > low_ ? std::min(1.0, std::log(value / low_) / std::log(high_ / low_)) : 0.0;
}

/// One line of pixels a row, one column a device pixel: the largest of the channels that fall into it.
void OverviewPlot::layoutChanged()
{
    if (rows_.empty()) {
        picture_->setVisible(false);
        return;
    }
    const QCPRange range = plot()->xAxis->range();
    const int first = std::clamp(static_cast<int>(std::floor(range.lower + 0.5)), 0, channels_ - 1);
    const int last = std::clamp(static_cast<int>(std::ceil(range.upper - 0.5)), first, channels_ - 1);
    const int shown = last - first + 1;
    const double ratio = plot()->bufferDevicePixelRatio();
    const int columns = std::clamp(static_cast<int>(plot()->axisRect()->width() * ratio), 1, shown);
    QImage image(columns, rowCount(), QImage::Format_ARGB32);
    for (int row = 0; row < rowCount(); ++row) {
        auto* line = reinterpret_cast<QRgb*>(image.scanLine(rowCount() - 1 - row));
        for (int column = 0; column < columns; ++column) {
            const int from = first + static_cast<int>(static_cast<qint64>(shown) * column / columns);
            const int to = first + static_cast<int>(static_cast<qint64>(shown) * (column + 1) / columns);
            double most = -1.0;
            bool any = false;
            for (int channel = from; channel < std::max(to, from + 1); ++channel) {
                const double here = value(row, channel);
                if (std::isnan(here))
                    continue;
                most = std::max(most, here);
                any = true;
            }
            line[column] = any ? Theme::magnitude(shareOf(most)).rgba() : qRgba(0, 0, 0, 0);
        }
    }
    picture_->setVisible(true);
    picture_->topLeft->setCoords(first - 0.5, rowCount());
    picture_->bottomRight->setCoords(last + 0.5, 0.0);
    picture_->setPixmap(QPixmap::fromImage(image));
}

void OverviewPlot::setSelection(const QString& group, int channel)
{
    group_ = group;
    channel_ = channel;
    rebuildCursor();
    replotCursor();
}

void OverviewPlot::rebuildCursor()
{
    const auto row = std::find_if(rows_.begin(), rows_.end(), [this](const ChannelMap::Row* candidate) {
        return QString::fromStdString(candidate->group) == group_;
    });
    cursor_->setVisible(row != rows_.end());
    if (row == rows_.end())
        return;
    const auto at = static_cast<double>(row - rows_.begin());
    const auto width = static_cast<double>((*row)->rms.size());
    const bool one = channel_ >= 0 && channel_ < width;
    cursor_->topLeft->setCoords(one ? channel_ - 0.5 : -0.5, at + 1.0);
    cursor_->bottomRight->setCoords(one ? channel_ + 0.5 : width - 0.5, at);
}

bool OverviewPlot::cellAt(const QPointF& position, int& row, int& channel) const
{
    if (!hasData() || !plot()->axisRect()->rect().contains(position.toPoint()))
        return false;
    row = static_cast<int>(std::floor(plot()->yAxis->pixelToCoord(position.y())));
    if (row < 0 || row >= rowCount())
        return false;
    // Many channels under the pointer: the one whose color is seen.
    const double from = plot()->xAxis->pixelToCoord(position.x() - 1.0);
    const double to = plot()->xAxis->pixelToCoord(position.x() + 1.0);
    channel = static_cast<int>(std::lround((from + to) / 2.0));
    double most = -1.0;
    for (int j = static_cast<int>(std::ceil(from)); to - from > 1.0 && j <= static_cast<int>(std::floor(to));
         ++j) {
        if (j < 0 || j >= channels_ || !(value(row, j) > most))
            continue;
        most = value(row, j);
        channel = j;
    }
    return channel >= 0 && channel < static_cast<int>(rows_[static_cast<std::size_t>(row)]->rms.size());
}

void OverviewPlot::select(int row, int channel)
{
    setSelection(QString::fromStdString(rows_[static_cast<std::size_t>(row)]->group), channel);
    Q_EMIT cellSelected(group_, channel_);
}

void OverviewPlot::pointerClicked(const QPointF& position)
{
    int row = 0;
    int channel = 0;
    if (cellAt(position, row, channel))
        select(row, channel);
}

bool OverviewPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (rows_.empty())
        return false;
    const auto found = std::find_if(rows_.begin(), rows_.end(), [this](const ChannelMap::Row* row) {
        return QString::fromStdString(row->group) == group_;
    });
    int row = found == rows_.end() ? 0 : static_cast<int>(found - rows_.begin());
    int channel = std::max(0, channel_);
    if (orientation == Qt::Vertical)
        row = std::clamp(row + steps, 0, rowCount() - 1);
    else
        channel += steps;
    select(row,
           std::clamp(channel, 0, static_cast<int>(rows_[static_cast<std::size_t>(row)]->rms.size()) - 1));
    return true;
}

bool OverviewPlot::activateCursor()
{
    if (group_.isEmpty() || rows_.empty())
        return false;
    Q_EMIT cellSelected(group_, channel_);
    return true;
}

QString OverviewPlot::cellText(int row, int channel) const
{
    const ChannelMap::Row& shown = *rows_[static_cast<std::size_t>(row)];
    return tr("%1\nchannel %2: largest %3, RMS %4")
        .arg(QString::fromStdString(shown.group))
        .arg(channel)
        .arg(formatNumber(shown.max_abs[channel]), formatNumber(shown.rms[channel]));
}

QString OverviewPlot::toolTipAt(const QPointF& position) const
{
    int row = 0;
    int channel = 0;
    return cellAt(position, row, channel) ? cellText(row, channel) : QString();
}

QString OverviewPlot::summary() const
{
    if (rows_.empty())
        return PlotView::summary();
    return tr("Map of %1 rows and %2 channels, %3 to %4. %5")
        .arg(rowCount())
        .arg(channels_)
        .arg(formatNumber(low_), formatNumber(high_), readout());
}

QVector<QStringList> OverviewPlot::table() const
{
    if (rows_.empty())
        return {};
    QVector<QStringList> lines{{tr("input of"), tr("block"), tr("strongest channel"), tr("largest |x|"),
                                tr("RMS there"), tr("median of largest |x|")}};
    for (const ChannelMap::Row* row : rows_) {
        Index strongest = 0;
        const double largest = row->max_abs.maxCoeff(&strongest);
        lines.append({QString::fromStdString(row->group), QString::number(row->block),
                      QString::number(strongest), formatExact(largest), formatExact(row->rms[strongest]),
                      formatExact(row->median_max_abs)});
    }
    return lines;
}

} // namespace rankscope
