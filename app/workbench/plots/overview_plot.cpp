// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/overview_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"

#include <QCheckBox>
#include <QComboBox>
#include <QLabel>
#include <QStandardItemModel>

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
    const QString names[] = {OverviewPlot::tr("largest |xⱼ|"), OverviewPlot::tr("RMS of xⱼ"),
                             OverviewPlot::tr("largest |wᵢⱼ|"), OverviewPlot::tr("RMS of wᵢⱼ")};
    const QString& name = names[static_cast<int>(quantity)];
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

/// Panels out of sight are in no layout that would end them in time.
OverviewPlot::~OverviewPlot()
{
    for (const Part& part : parts_)
        for (QCPLayoutElement* element :
             {static_cast<QCPLayoutElement*>(part.rect), static_cast<QCPLayoutElement*>(part.title)})
            if (element->layout() == nullptr)
                delete element;
    if (ratio_scale_->layout() == nullptr)
        delete ratio_scale_;
}

void OverviewPlot::buildControls()
{
    quantity_box_ = new QComboBox(this);
    quantity_box_->setAccessibleName(tr("Quantity of each channel"));
    quantity_box_->addItems({tr("activation max"), tr("activation RMS"), tr("weight max"), tr("weight RMS")});
    quantity_box_->setObjectName(QStringLiteral("overview_quantity"));
    quantity_box_->setToolTip(tr("Of activations, or while comparing of both sides' weights (Ctrl+B)"));
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
    plot()->legend->setVisible(false);
    scale_ = addColorScale();
    scale_->setDataScaleType(QCPAxis::stLogarithmic);
    scale_->axis()->setTicker(QSharedPointer<QCPAxisTickerLog>::create());
    scale_->axis()->setNumberPrecision(2);
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 10; ++i)
        gradient.setColorStopAt(i / 10.0, Theme::magnitude(i / 10.0));
    scale_->setGradient(gradient);
    sides_ = new QCPMarginGroup(plot());
    for (Part& part : parts_)
        buildPart(part);
    ratio_scale_ = new QCPColorScale(plot());
    ratio_scale_->setType(QCPAxis::atRight);
    ratio_scale_->setBarWidth(12);
    ratio_scale_->setRangeDrag(false);
    ratio_scale_->setRangeZoom(false);
    ratio_scale_->axis()->setLabel(tr("log₂ B / A"));
    auto* same = new QCPMarginGroup(plot());
    parts_[Ratio].rect->setMarginGroup(QCP::msTop | QCP::msBottom, same);
    ratio_scale_->setMarginGroup(QCP::msTop | QCP::msBottom, same);
}

/// The first panel is the axis rect that every plot has; the others follow its ranges, and it theirs.
void OverviewPlot::buildPart(Part& part)
{
    const bool first = &part == &parts_[First];
    part.rect = first ? plot()->axisRect() : new QCPAxisRect(plot());
    part.title = new QCPTextElement(plot());
    part.title->setTextFlags(Qt::AlignLeft | Qt::AlignVCenter);
    part.title->setMargins(QMargins(8, 2, 0, 0));
    part.rect->setMarginGroup(QCP::msLeft | QCP::msRight, sides_);
    part.rect->setRangeDrag(Qt::Horizontal);
    part.rect->setRangeZoom(Qt::Horizontal);
    for (const QCPAxis::AxisType type : {QCPAxis::atBottom, QCPAxis::atLeft}) {
        QCPAxis* axis = part.rect->axis(type);
        axis->grid()->setVisible(false);
        axis->setTickLengthIn(0);
        axis->setTickLengthOut(4);
        if (first)
            continue;
        QCPAxis* main = type == QCPAxis::atBottom ? plot()->xAxis : plot()->yAxis;
        for (const auto& [leader, follower] : {std::pair(axis, main), std::pair(main, axis)})
            connect(leader, qOverload<const QCPRange&>(&QCPAxis::rangeChanged), follower,
                    [from = leader, to = follower] { to->setRange(from->range()); });
    }
    part.picture = new QCPItemPixmap(plot());
    part.picture->setScaled(true, Qt::IgnoreAspectRatio, Qt::FastTransformation);
    part.cursor = new QCPItemRect(plot());
    part.cursor->setLayer(cursorLayer());
    part.cursor->setBrush(Qt::NoBrush);
    for (QCPAbstractItem* item :
         {static_cast<QCPAbstractItem*>(part.picture), static_cast<QCPAbstractItem*>(part.cursor)}) {
        item->setClipAxisRect(part.rect);
        for (QCPItemPosition* corner : item->positions()) {
            corner->setAxisRect(part.rect);
            corner->setAxes(part.rect->axis(QCPAxis::atBottom), part.rect->axis(QCPAxis::atLeft));
        }
    }
}

/// One panel, or three below each other: outlier channels stand in one line.
void OverviewPlot::arrangeParts()
{
    QCPLayoutGrid* grid = plot()->plotLayout();
    for (const Part& part : parts_) {
        if (part.title->layout() != nullptr)
            grid->take(part.title);
        if (part.rect != parts_[First].rect && part.rect->layout() != nullptr)
            grid->take(part.rect);
        part.rect->setMinimumMargins(compares() ? QMargins(15, 2, 15, 2) : QMargins(15, 15, 15, 15));
        part.title->setVisible(compares());
        part.rect->setVisible(compares() || &part == &parts_[First]);
        part.picture->setVisible(part.rect->visible());
    }
    if (ratio_scale_->layout() != nullptr)
        grid->take(ratio_scale_);
    ratio_scale_->setVisible(compares());
    grid->simplify();
    if (!compares())
        return;
    const auto row_of = [grid](const QCPLayoutElement* element) {
        for (int row = 0; row < grid->rowCount(); ++row)
            if (grid->element(row, 0) == element)
                return row;
        return 0;
    };
    int row = row_of(parts_[First].rect);
    grid->insertRow(row);
    grid->addElement(row++, 0, parts_[First].title);
    for (const Panel panel : {Second, Ratio}) {
        grid->insertRow(++row);
        grid->addElement(row, 0, parts_[panel].title);
        grid->insertRow(++row);
        grid->addElement(row, 0, parts_[panel].rect);
    }
    grid->addElement(row, 1, ratio_scale_);
    for (const Part& part : parts_) {
        grid->setRowStretchFactor(row_of(part.title), 0.0001);
        grid->setRowStretchFactor(row_of(part.rect), 1.0);
    }
}

void OverviewPlot::restyle()
{
    for (const Part& part : parts_) {
        part.cursor->setPen(QPen(ink(Theme::Token::Outlier), 2.0));
        part.title->setFont(plot()->xAxis->tickLabelFont());
        part.title->setTextColor(ink(Theme::Token::Text));
        part.rect->setBackground(QBrush(ink(Theme::Token::Base)));
        for (const QCPAxis::AxisType type : {QCPAxis::atBottom, QCPAxis::atLeft})
            inkAxis(part.rect->axis(type));
    }
    inkAxis(scale_->axis());
    inkAxis(ratio_scale_->axis());
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 20; ++i)
        gradient.setColorStopAt(i / 20.0, Theme::signedValue(i / 10.0 - 1.0, paintsDark()));
    ratio_scale_->setGradient(gradient);
    rebuildCursor();
}

void OverviewPlot::setOther(std::shared_ptr<const ChannelMapPair> other, const QString& name)
{
    if (!other && !other_ && name == other_name_)
        return;
    const bool first = other && !other_;
    const bool last = other_ && name.isEmpty();
    other_ = std::move(other);
    other_name_ = name;
    auto* items = qobject_cast<QStandardItemModel*>(quantity_box_->model());
    for (const Quantity quantity : {Quantity::WeightMax, Quantity::WeightRms})
        items->item(static_cast<int>(quantity))->setEnabled(other_ != nullptr);
    if (first) { // of the activations there may be no map
        alone_ = quantity_;
        message_alone_ = message();
        showMessage({});
        setQuantity(Quantity::WeightMax);
    } else if (last) {
        setQuantity(alone_);
        if (!map_)
            showMessage(message_alone_);
    } else {
        rebuild();
    }
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

/// The rows of each panel; below them, what the first ones are.
void OverviewPlot::chooseRows()
{
    rows_.clear();
    for (auto& rows : compared_)
        rows.clear();
    channels_ = 0;
    persistent_.clear();
    const ChannelMap* shown = compares() ? &other_->first : ofWeights() ? nullptr : map_.get();
    for (std::size_t i = 0; shown && i < shown->rows.size(); ++i) {
        const ChannelMap::Row& row = shown->rows[i];
        if (!belongs(row.role, inputs_))
            continue;
        rows_.push_back(&row);
        channels_ = std::max(channels_, static_cast<int>(row.rms.size()));
        if (compares()) {
            compared_[Second].push_back(&other_->second.rows[i]);
            compared_[Ratio].push_back(&other_->log_ratio.rows[i]);
        }
    }
    compared_[First] = rows_;
    std::vector<const VectorD*> alike;
    for (const ChannelMap::Row* row : rows_) {
        const VectorD& values = ofMaxima() ? row->max_abs : row->rms;
        if (values.size() == channels_)
            alike.push_back(&values);
    }
    for (const Index channel : persistent_channels(alike, k_factor, k_share))
        persistent_.append(static_cast<int>(channel));
}

QString OverviewPlot::persistentText() const
{
    QStringList names;
    for (const int channel : std::as_const(persistent_)) {
        if (names.size() == k_most_listed) {
            names.append(QStringLiteral("…"));
            break;
        }
        names.append(QString::number(channel));
    }
    return rows_.empty() ? QString()
           : persistent_.isEmpty()
               ? tr("No channel is above %1 × the median of its row in half of the rows").arg(k_factor)
               : tr("%n channel(s) above %1 × the median in at least half of the rows: %2", nullptr,
                    static_cast<int>(persistent_.size()))
                     .arg(k_factor)
                     .arg(names.join(QStringLiteral(", ")));
}

/// What has no partner comes first.
QString OverviewPlot::compareText() const
{
    if (other_name_.isEmpty())
        return {};
    if (!other_)
        return tr("The weights of both sides are read");
    QStringList parts;
    const auto listed = [](const std::vector<std::string>& groups) {
        QStringList names;
        for (std::size_t i = 0; i < groups.size() && i < static_cast<std::size_t>(k_most_listed); ++i)
            names.append(QString::fromStdString(groups[i]));
        return names.join(QStringLiteral(", "))
               + (groups.size() > static_cast<std::size_t>(k_most_listed) ? QStringLiteral(", …")
                                                                          : QString());
    };
    if (!other_->only_first.empty())
        parts.append(tr("%n row(s) only in A: %1", nullptr, static_cast<int>(other_->only_first.size()))
                         .arg(listed(other_->only_first)));
    if (!other_->only_second.empty())
        parts.append(tr("%n row(s) only in B: %1", nullptr, static_cast<int>(other_->only_second.size()))
                         .arg(listed(other_->only_second)));
    if (!ofWeights())
        parts.append(
            tr("Activations of A; B (%1) is compared by weight max and weight RMS").arg(other_name_));
    else
        parts.append(tr("log₂ B / A lies within ±%1")
                         .arg(formatNumber(ofMaxima() ? other_->largest_max_abs : other_->largest_rms)));
    return parts.join(QStringLiteral("  ·  "));
}

/// Rows, scale, axes and readout; the picture itself follows with the layout.
void OverviewPlot::rebuild()
{
    chooseRows();
    arrangeParts();
    rebuildScale();

    setHasData(!rows_.empty());
    setTitle(rows_.empty() ? QString()
                           : tr("%1 of %2, by block")
                                 .arg(quantityName(quantity_, normalised_),
                                      inputs_box_->itemText(static_cast<int>(inputs_))));
    const QString across = tr("input channel");
    setAxis(Qt::Horizontal, AxisKind::Whole, compares() ? QString() : across);
    parts_[Ratio].rect->axis(QCPAxis::atBottom)->setLabel(across);
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
    for (const Panel panel : {Second, Ratio}) {
        const QCPAxisRect* rect = parts_[panel].rect;
        rect->axis(QCPAxis::atLeft)->setTicker(plot()->yAxis->ticker());
        rect->axis(QCPAxis::atBottom)->setTicker(plot()->xAxis->ticker());
        rect->axis(QCPAxis::atBottom)->setRange(plot()->xAxis->range());
        rect->axis(QCPAxis::atLeft)->setRange(plot()->yAxis->range());
    }
    parts_[First].title->setText(tr("A"));
    parts_[Second].title->setText(tr("B: %1").arg(other_name_));
    parts_[Ratio].title->setText(tr("B / A"));
    QStringList texts{compareText(), persistentText()};
    texts.removeAll(QString());
    setReadout(texts.join(QStringLiteral("  ·  ")));
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
        const double median = ofMaxima() ? rows_[i]->median_max_abs : rows_[i]->median_rms;
        medians_[i] = median > 0.0 ? median : 1.0;
    }
    low_ = std::numeric_limits<double>::infinity();
    high_ = 0.0;
    for (int row = 0; row < rowCount(); ++row) {
        for (int channel = 0; channel < channels_; ++channel) {
            for (const Panel panel : {First, Second}) {
                const double here = panel == First || compares() ? value(panel, row, channel) : k_nan;
                if (!std::isfinite(here) || here <= 0.0)
                    continue;
                low_ = std::min(low_, here);
                high_ = std::max(high_, here);
            }
        }
    }
    if (!(high_ > 0.0))
        low_ = high_ = 1.0;
    double calmest = high_;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const double median = ofMaxima() ? rows_[i]->median_max_abs : rows_[i]->median_rms;
        if (median > 0.0)
            calmest = std::min(calmest, median / medians_[i]);
    }
    low_ = std::max({low_, high_ * std::pow(10.0, -k_most_decades), calmest / k_below_median});
    if (!(low_ < high_))
        low_ = high_ / 10.0;
    scale_->axis()->ticker()->setTickCount(compares() ? 3 : 5); // of three panels each is low
    scale_->setDataRange(QCPRange(low_, high_));
    scale_->axis()->setLabel(quantityName(quantity_, normalised_));
    const double most = !other_ ? 0.0 : ofMaxima() ? other_->largest_max_abs : other_->largest_rms;
    ratio_end_ = most > 0.0 ? most : 1.0;
    ratio_scale_->setDataRange(QCPRange(-ratio_end_, ratio_end_));
}

double OverviewPlot::value(Panel panel, int row, int channel) const
{
    const ChannelMap::Row& shown = *compared_[panel][static_cast<std::size_t>(row)];
    const VectorD& values = ofMaxima() ? shown.max_abs : shown.rms;
    if (channel >= values.size())
        return k_nan;
    // B in multiples of A's median, too: the same color is the same value.
    return panel == Ratio ? values[channel] : values[channel] / medians_[static_cast<std::size_t>(row)];
}

QRgb OverviewPlot::color(Panel panel, double value) const
{
    return panel == Ratio ? Theme::signedValue(value / ratio_end_, paintsDark()).rgba()
                          : Theme::magnitude(shareOf(value)).rgba();
}

double OverviewPlot::shareOf(double value) const
{
    return value > low_ ? std::min(1.0, std::log(value / low_) / std::log(high_ / low_)) : 0.0;
}

void OverviewPlot::layoutChanged()
{
    for (const Panel panel : {First, Second, Ratio})
        paintPart(panel);
}

/// One line of pixels a row, one column a device pixel: of the channels that fall into it the one of largest
/// magnitude.
void OverviewPlot::paintPart(Panel panel)
{
    const Part& part = parts_[panel];
    const bool drawn = !rows_.empty() && (panel == First || compares());
    part.picture->setVisible(drawn);
    if (!drawn)
        return;
    const QCPRange range = plot()->xAxis->range();
    const int first = std::clamp(static_cast<int>(std::floor(range.lower + 0.5)), 0, channels_ - 1);
    const int last = std::clamp(static_cast<int>(std::ceil(range.upper - 0.5)), first, channels_ - 1);
    const int shown = last - first + 1;
    const double ratio = plot()->bufferDevicePixelRatio();
    const int columns = std::clamp(static_cast<int>(part.rect->width() * ratio), 1, shown);
    QImage image(columns, rowCount(), QImage::Format_ARGB32);
    for (int row = 0; row < rowCount(); ++row) {
        auto* line = reinterpret_cast<QRgb*>(image.scanLine(rowCount() - 1 - row));
        for (int column = 0; column < columns; ++column) {
            const int from = first + static_cast<int>(static_cast<qint64>(shown) * column / columns);
            const int to = first + static_cast<int>(static_cast<qint64>(shown) * (column + 1) / columns);
            double most = k_nan;
            for (int channel = from; channel < std::max(to, from + 1); ++channel) {
                const double here = value(panel, row, channel);
                if (!std::isnan(here) && !(std::abs(here) <= std::abs(most)))
                    most = here;
            }
            line[column] = std::isnan(most) ? qRgba(0, 0, 0, 0) : color(panel, most);
        }
    }
    part.picture->topLeft->setCoords(first - 0.5, rowCount());
    part.picture->bottomRight->setCoords(last + 0.5, 0.0);
    part.picture->setPixmap(QPixmap::fromImage(image));
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
    for (const Part& part : parts_)
        part.cursor->setVisible(row != rows_.end() && part.rect->visible());
    if (row == rows_.end())
        return;
    const auto at = static_cast<double>(row - rows_.begin());
    const auto width = static_cast<double>((*row)->rms.size());
    const bool one = channel_ >= 0 && channel_ < width;
    for (const Part& part : parts_) {
        part.cursor->topLeft->setCoords(one ? channel_ - 0.5 : -0.5, at + 1.0);
        part.cursor->bottomRight->setCoords(one ? channel_ + 0.5 : width - 0.5, at);
    }
}

bool OverviewPlot::cellAt(const QPointF& position, int& row, int& channel) const
{
    const auto part = std::find_if(parts_.begin(), parts_.end(), [&position](const Part& candidate) {
        return candidate.rect->visible() && candidate.rect->rect().contains(position.toPoint());
    });
    if (!hasData() || part == parts_.end())
        return false;
    const auto panel = static_cast<Panel>(part - parts_.begin());
    row = static_cast<int>(std::floor(part->rect->axis(QCPAxis::atLeft)->pixelToCoord(position.y())));
    if (row < 0 || row >= rowCount())
        return false;
    // Many channels under the pointer: the one whose color is seen.
    const double from = plot()->xAxis->pixelToCoord(position.x() - 1.0);
    const double to = plot()->xAxis->pixelToCoord(position.x() + 1.0);
    channel = static_cast<int>(std::lround((from + to) / 2.0));
    double most = -1.0;
    for (int j = static_cast<int>(std::ceil(from)); to - from > 1.0 && j <= static_cast<int>(std::floor(to));
         ++j) {
        if (j < 0 || j >= channels_ || !(std::abs(value(panel, row, j)) > most))
            continue;
        most = std::abs(value(panel, row, j));
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
    if (compares()) {
        const ChannelMap::Row& other = *compared_[Second][static_cast<std::size_t>(row)];
        const auto text = [channel](const ChannelMap::Row& one) {
            return channel < one.rms.size()
                       ? tr("largest %1, RMS %2")
                             .arg(formatNumber(one.max_abs[channel]), formatNumber(one.rms[channel]))
                       : tr("no such channel");
        };
        return tr("%1\nweights at channel %2 of A: %3\nof B: %4")
            .arg(QString::fromStdString(shown.group))
            .arg(channel)
            .arg(text(shown), text(other));
    }
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
    if (compares())
        return comparedTable();
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

/// Rows without a partner first, then both sides' strongest channels.
QVector<QStringList> OverviewPlot::comparedTable() const
{
    QVector<QStringList> lines{{tr("input of"), tr("block"), tr("strongest channel of A"),
                                tr("largest |w| of A"), tr("there in B"), tr("Δ there"),
                                tr("strongest channel of B"), tr("largest |w| of B")}};
    for (const auto& [groups, text] :
         {std::pair(&other_->only_first, tr("only in A")), std::pair(&other_->only_second, tr("only in B"))})
        for (const std::string& group : *groups)
            lines.append({QString::fromStdString(group), text, {}, {}, {}, {}, {}, {}});
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const ChannelMap::Row& a = *rows_[i];
        const ChannelMap::Row& b = *compared_[Second][i];
        Index at_a = 0;
        Index at_b = 0;
        const double largest_a = a.max_abs.maxCoeff(&at_a);
        const double largest_b = b.max_abs.maxCoeff(&at_b);
        const bool there = at_a < b.max_abs.size();
        lines.append({QString::fromStdString(a.group), QString::number(a.block), QString::number(at_a),
                      formatExact(largest_a), there ? formatExact(b.max_abs[at_a]) : QString(),
                      there ? formatExact(b.max_abs[at_a] - largest_a) : QString(), QString::number(at_b),
                      formatExact(largest_b)});
    }
    return lines;
}

} // namespace rankscope
