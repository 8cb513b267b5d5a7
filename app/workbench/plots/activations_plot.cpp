// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/activations_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/token_text.h"

#include <QCheckBox>
#include <QComboBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QLabel>
#include <QPushButton>
#include <QSignalBlocker>
#include <QSpinBox>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

constexpr double k_decades = 3.0;
constexpr double k_clip_factor = 4.0;
constexpr int k_line_pixels = 14; ///< between the texts of two tokens
constexpr int k_label_pixels = 110;
constexpr int k_least_tokens = 2;
constexpr int k_most_tokens = 2048;

/// The text of each token where there is room, of every n-th elsewhere.
class TokenTicker : public QCPAxisTicker {
public:
    TokenTicker(QStringList texts, const QCPAxis* axis) : texts_(std::move(texts)), axis_(axis) {}

protected:
    double getTickStep(const QCPRange& range) override
    {
        const int height = std::max(axis_->axisRect()->height(), 1);
        return std::max(1.0, std::ceil(range.size() * k_line_pixels / height));
    }
    int getSubTickCount(double) override { return 0; }
    QString getTickLabel(double tick, const QLocale&, QChar, int) override
    {
        const double place = std::round(tick);
        if (std::abs(place - tick) > 1e-6 || place < 0.0)
            return {};
        const QString text = texts_.value(static_cast<qsizetype>(place));
        return QFontMetrics(axis_->tickLabelFont()).elidedText(text, Qt::ElideRight, k_label_pixels);
    }

private:
    QStringList texts_;
    const QCPAxis* axis_;
};

} // namespace

ActivationsPlot::ActivationsPlot(QWidget* parent) : PlotView(parent)
{
    setZoomsBothAxes(true);
    buildControls();
    buildItems();
    restyle();
    setActivations(nullptr, {});
}

void ActivationsPlot::buildControls()
{
    text_button_ = new QPushButton(this);
    text_button_->setAccessibleName(tr("Text that flows through the model"));
    tokens_box_ = new QSpinBox(this);
    tokens_box_->setRange(k_least_tokens, k_most_tokens);
    tokens_box_->setValue(tokens_);
    tokens_box_->setSuffix(tr(" tokens"));
    tokens_box_->setAccessibleName(tr("Tokens at a time"));
    stretch_box_ = new QSpinBox(this);
    stretch_box_->setRange(0, 0);
    stretch_box_->setPrefix(tr("part "));
    stretch_box_->setAccessibleName(tr("Which part of the text"));
    for (QSpinBox* box : {tokens_box_, stretch_box_})
        box->setKeyboardTracking(false);
    colors_box_ = new QComboBox(this);
    colors_box_->setAccessibleName(tr("What colors mean"));
    colors_box_->addItems({tr("magnitude, logarithmic"), tr("value, linear")});
    clipped_box_ = new QCheckBox(tr("Clip"), this);
    clipped_box_->setToolTip(
        tr("Colors end at %1 × RMS: larger values look alike, smaller ones differ more (C)")
            .arg(k_clip_factor));
    strong_box_ = new QComboBox(this);
    strong_box_->setAccessibleName(tr("Tokens with the largest activations"));
    strong_box_->setToolTip(
        tr("Massive activations after this block (above 100 and 1000 × the median), then the "
           "largest inputs, token by token; choosing one goes there"));
    strong_box_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    strong_box_->setMinimumContentsLength(24);
    for (QWidget* widget : {static_cast<QWidget*>(text_button_), static_cast<QWidget*>(tokens_box_),
                            static_cast<QWidget*>(stretch_box_), static_cast<QWidget*>(colors_box_),
                            static_cast<QWidget*>(clipped_box_), static_cast<QWidget*>(strong_box_)})
        controls()->addWidget(widget);
    connect(text_button_, &QPushButton::clicked, this, &ActivationsPlot::chooseText);
    connect(tokens_box_, &QSpinBox::valueChanged, this, [this](int tokens) {
        tokens_ = tokens;
        stretch_ = 0;
        Q_EMIT optionsChanged();
    });
    connect(stretch_box_, &QSpinBox::valueChanged, this, [this](int stretch) {
        stretch_ = stretch;
        Q_EMIT optionsChanged();
    });
    connect(colors_box_, &QComboBox::activated, this, [this](int index) { setSigned(index == 1); });
    connect(clipped_box_, &QCheckBox::toggled, this, &ActivationsPlot::setClipped);
    connect(strong_box_, &QComboBox::activated, this, [this](int index) {
        const QPoint cell = strong_box_->itemData(index).toPoint();
        if (strong_box_->itemData(index).isValid())
            choose(cell.y(), cell.x());
    });
}

void ActivationsPlot::buildItems()
{
    plot()->legend->setVisible(false);
    plot()->yAxis->setRangeReversed(true);
    for (QCPAxis* axis : {plot()->xAxis, plot()->yAxis}) {
        axis->grid()->setVisible(false);
        axis->setOffset(2); // its line would hide the outermost cells
    }
    image_ = new MatrixImage(plot(), plot()->axisRect());
    for (QCPItemRect** item : {&column_, &cell_}) {
        *item = new QCPItemRect(plot());
        (*item)->setLayer(cursorLayer());
        (*item)->setBrush(Qt::NoBrush);
    }
    scale_ = addColorScale();
}

void ActivationsPlot::restyle()
{
    cell_->setPen(QPen(ink(Theme::Token::Outlier), 2.0));
    column_->setPen(QPen(ink(Theme::Token::Outlier), 1.0, Qt::DashLine));
    image_->setInks(ink(Theme::Token::Error), plot()->xAxis->tickLabelFont());
    inkAxis(scale_->axis());
    rebuildColors();
}

int ActivationsPlot::tokenCount() const
{
    return picture_ && picture_->values ? static_cast<int>(picture_->values->rows()) : 0;
}

void ActivationsPlot::setActivations(std::shared_ptr<const ActivationPicture> picture, const QString& group)
{
    picture_ = std::move(picture);
    group_ = group;
    const bool known = tokenCount() > 0;
    setHasData(known);
    if (token_ >= tokenCount())
        token_ = -1;
    if (known && channel_ >= picture_->values->cols())
        channel_ = -1;
    rebuild();
    if (picture_ && !known)
        showMessage(tr("No token of this text reaches %1.").arg(group_));
}

void ActivationsPlot::rebuild()
{
    setTitle(group_.isEmpty() ? QString() : tr("Input of %1, token by token").arg(group_));
    const QSignalBlocker quiet(stretch_box_);
    text_button_->setText(file_.isEmpty() ? tr("Built-in text…")
                                          : tr("%1…").arg(QFileInfo(file_).fileName()));
    if (picture_) {
        const TokenStretch& stretch = picture_->activations.stretch;
        text_button_->setToolTip(tr("%1: %2 tokens, SHA-256 %3. Click to choose another text.")
                                     .arg(QString::fromStdString(stretch.file))
                                     .arg(formatCount(static_cast<qint64>(stretch.file_tokens)))
                                     .arg(QString::fromStdString(stretch.hash)));
        stretch_box_->setMaximum(
            static_cast<int>(std::min<Index>(stretch.file_tokens / std::max(1, tokens_ - 1), 1'000'000)));
    }
    stretch_box_->setValue(stretch_);
    rebuildTexts();
    const int tokens = tokenCount();
    image_->setMatrix(tokens > 0 ? picture_->values : nullptr);
    setAxis(Qt::Horizontal, AxisKind::Whole, tr("input channel"));
    setAxis(Qt::Vertical, AxisKind::Whole, QString());
    plot()->yAxis->setTicker(QSharedPointer<TokenTicker>::create(texts_, plot()->yAxis));
    setLimits(-0.5, tokens > 0 ? static_cast<double>(picture_->values->cols()) - 0.5 : 0.5, -0.5,
              std::max(tokens, 1) - 0.5);
    rebuildList();
    rebuildColors();
    rebuildCursor();
    rebuildReadout();
}

void ActivationsPlot::rebuildTexts()
{
    texts_.clear();
    if (!picture_)
        return;
    const QFontMetrics metrics(plot()->yAxis->tickLabelFont());
    for (const std::string& text : picture_->activations.texts)
        texts_.append(tokenText(QString::fromStdString(text), metrics));
}

void ActivationsPlot::rebuildList()
{
    strong_box_->clear();
    strong_box_->setEnabled(tokenCount() > 0);
    if (tokenCount() == 0)
        return;
    const TokenActivations& all = picture_->activations;
    const QString line = tr("%1 at %2: channel %3, %4");
    if (all.massive.empty())
        strong_box_->addItem(tr("No massive activation"));
    for (const TokenEntry& entry : all.massive) {
        // Positions of the stretch; of an expert's input only some are rows.
        const auto row = std::find(all.positions.begin(), all.positions.end(), entry.token);
        const bool drawn = row != all.positions.end();
        const QString text = drawn ? texts_.value(row - all.positions.begin()) : QString();
        strong_box_->addItem(
            tr("Massive after this block: %1")
                .arg(line.arg(text).arg(entry.token).arg(entry.channel).arg(formatNumber(entry.value))),
            drawn && entry.channel < picture_->values->cols() ? QVariant(
                QPoint(static_cast<int>(entry.channel), static_cast<int>(row - all.positions.begin())))
                                                              : QVariant());
    }
    for (const TokenEntry& entry : all.strongest)
        strong_box_->addItem(line.arg(texts_.value(entry.token))
                                 .arg(all.positions[static_cast<std::size_t>(entry.token)])
                                 .arg(entry.channel)
                                 .arg(formatNumber(entry.value)),
                             QPoint(static_cast<int>(entry.channel), static_cast<int>(entry.token)));
}

void ActivationsPlot::rebuildColors()
{
    double high = 1.0;
    if (tokenCount() > 0 && picture_->values->largest() > 0.0)
        high = clipped_ ? std::min(picture_->values->largest(), k_clip_factor * picture_->values->rms())
                        : picture_->values->largest();
    image_->setColors({signed_, high, k_decades, paintsDark()});
    scale_->setDataScaleType(signed_ ? QCPAxis::stLinear : QCPAxis::stLogarithmic);
    scale_->axis()->setTicker(signed_
                                  ? QSharedPointer<QCPAxisTicker>::create()
                                  : QSharedPointer<QCPAxisTickerLog>::create().staticCast<QCPAxisTicker>());
    scale_->axis()->setNumberFormat(signed_ ? QStringLiteral("gb") : QStringLiteral("eb"));
    scale_->axis()->setNumberPrecision(signed_ ? 3 : 0);
    scale_->setDataRange(QCPRange(signed_ ? -high : high * std::pow(10.0, -k_decades), high));
    scale_->axis()->setLabel(signed_ ? tr("x") : tr("|x|"));
    QCPColorGradient gradient;
    gradient.clearColorStops();
    for (int i = 0; i <= 20; ++i)
        gradient.setColorStopAt(i / 20.0, signed_ ? Theme::signedValue(i / 10.0 - 1.0, paintsDark())
                                                  : Theme::magnitude(i / 20.0));
    scale_->setGradient(gradient);
    replotLater();
}

void ActivationsPlot::setSigned(bool is_signed)
{
    signed_ = is_signed;
    colors_box_->setCurrentIndex(is_signed ? 1 : 0);
    rebuildColors();
}

void ActivationsPlot::setClipped(bool clipped)
{
    clipped_ = clipped;
    clipped_box_->setChecked(clipped);
    rebuildColors();
}

void ActivationsPlot::chooseText()
{
    auto* dialog = new QFileDialog(this, tr("Text that flows through the model"), QString(),
                                   tr("Text (*.txt *.md *.raw);;All files (*)"));
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(QFileDialog::ExistingFile);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& file) {
        file_ = file;
        stretch_ = 0;
        Q_EMIT optionsChanged();
    });
    dialog->open();
}

QVariantMap ActivationsPlot::options() const
{
    return {{QStringLiteral("text"), file_},
            {QStringLiteral("tokens"), tokens_},
            {QStringLiteral("stretch"), stretch_}};
}

void ActivationsPlot::setOptions(const QVariantMap& options)
{
    file_ = options.value(QStringLiteral("text")).toString();
    tokens_ = std::clamp(options.value(QStringLiteral("tokens"), 128).toInt(), k_least_tokens, k_most_tokens);
    stretch_ = std::max(0, options.value(QStringLiteral("stretch")).toInt());
    const QSignalBlocker quiet_tokens(tokens_box_);
    const QSignalBlocker quiet_stretch(stretch_box_);
    tokens_box_->setValue(tokens_);
    stretch_box_->setMaximum(std::max(stretch_box_->maximum(), stretch_));
    stretch_box_->setValue(stretch_);
}

void ActivationsPlot::setSelectedChannel(int channel)
{
    if (channel == channel_)
        return;
    channel_ = tokenCount() > 0 && channel >= picture_->values->cols() ? -1 : channel;
    token_ = -1;
    rebuildCursor();
    rebuildReadout();
}

void ActivationsPlot::rebuildCursor()
{
    const bool known = tokenCount() > 0;
    column_->setVisible(known && channel_ >= 0);
    cell_->setVisible(known && channel_ >= 0 && token_ >= 0);
    const auto x = static_cast<double>(channel_);
    const auto y = static_cast<double>(token_);
    column_->topLeft->setCoords(x - 0.5, -0.5);
    column_->bottomRight->setCoords(x + 0.5, std::max(tokenCount(), 1) - 0.5);
    cell_->topLeft->setCoords(x - 0.5, y - 0.5);
    cell_->bottomRight->setCoords(x + 0.5, y + 0.5);
    replotCursor();
}

QString ActivationsPlot::cellText(Index token, Index channel) const
{
    return tr("Token %1 %2, channel %3: %4")
        .arg(picture_->activations.positions[static_cast<std::size_t>(token)])
        .arg(texts_.value(token))
        .arg(channel)
        .arg(formatNumber((*picture_->values)(token, channel)));
}

void ActivationsPlot::rebuildReadout()
{
    if (tokenCount() == 0) {
        setReadout({});
        updateDescription();
        return;
    }
    const TokenActivations& all = picture_->activations;
    QStringList parts{tr("%1 tokens of %2 from token %3 on")
                          .arg(tokenCount())
                          .arg(QString::fromStdString(all.stretch.file))
                          .arg(all.stretch.first)};
    parts.append(tr("median |x| %1, largest %2")
                     .arg(formatNumber(all.median_abs), formatNumber(picture_->values->largest())));
    parts.append(all.massive.empty()
                     ? tr("no massive activation after this block")
                     : tr("massive activations after this block: %1").arg(all.massive.size()));
    if (picture_->values->not_finite() > 0)
        parts.append(tr("%1 values are NaN or infinity (checkered)")
                         .arg(formatCount(static_cast<qint64>(picture_->values->not_finite()))));
    if (token_ >= 0 && channel_ >= 0)
        parts.append(cellText(token_, channel_));
    else if (channel_ >= 0)
        parts.append(tr("channel %1 is framed").arg(channel_));
    setReadout(parts.join(QStringLiteral("  ·  ")));
    updateDescription();
}

QString ActivationsPlot::summary() const
{
    return hasData() ? tr("Activations at the input of %1. %2").arg(group_, readout()) : PlotView::summary();
}

QVector<QStringList> ActivationsPlot::table() const
{
    if (tokenCount() == 0)
        return {};
    QVector<QStringList> rows{
        {tr("position"), tr("token"), tr("id"), tr("strongest channel"), tr("x there")}};
    const TokenActivations& all = picture_->activations;
    for (const TokenEntry& peak : all.strongest) {
        const Index position = all.positions[static_cast<std::size_t>(peak.token)];
        rows.append({QString::number(position), texts_.value(peak.token),
                     QString::number(all.stretch.tokens[static_cast<std::size_t>(position)]),
                     QString::number(peak.channel), formatExact(peak.value)});
    }
    return rows;
}

void ActivationsPlot::choose(Index token, Index channel)
{
    token_ = std::clamp<Index>(token, 0, tokenCount() - 1);
    channel_ = std::clamp<Index>(channel, 0, picture_->values->cols() - 1);
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(static_cast<int>(channel_));
}

void ActivationsPlot::pointerClicked(const QPointF& position)
{
    Index token = 0;
    Index channel = 0;
    if (image_->cellAt(position, token, channel))
        choose(token, channel);
}

QString ActivationsPlot::toolTipAt(const QPointF& position) const
{
    Index token = 0;
    Index channel = 0;
    return image_->cellAt(position, token, channel) ? cellText(token, channel) : QString();
}

bool ActivationsPlot::cursorKey(int steps, Qt::Orientation orientation)
{
    if (tokenCount() == 0)
        return false;
    const bool across = orientation == Qt::Horizontal;
    choose(std::max<Index>(token_, 0) - (across ? 0 : steps),
           std::max<Index>(channel_, 0) + (across ? steps : 0));
    return true;
}

bool ActivationsPlot::activateCursor()
{
    if (channel_ < 0)
        return false;
    Q_EMIT channelSelected(static_cast<int>(channel_));
    return true;
}

bool ActivationsPlot::leave()
{
    if (token_ < 0 && channel_ < 0)
        return false;
    token_ = channel_ = -1;
    rebuildCursor();
    rebuildReadout();
    Q_EMIT channelSelected(-1);
    return true;
}

void ActivationsPlot::keyPressEvent(QKeyEvent* event)
{
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_C)
        return setClipped(!clipped_);
    if (event->modifiers() == Qt::NoModifier && event->key() == Qt::Key_L)
        return setSigned(!signed_);
    PlotView::keyPressEvent(event);
}

} // namespace rankscope
