// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/activations_plot.h"

#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/token_text.h"

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

constexpr int k_panels = 3;       ///< A, B and their difference
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

ActivationsPlot::ActivationsPlot(QWidget* parent) : MapPlot(k_panels, parent)
{
    buildControls();
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
    strong_box_ = new QComboBox(this);
    strong_box_->setAccessibleName(tr("Tokens with the largest activations"));
    strong_box_->setToolTip(
        tr("Massive activations after this block (above 100 and 1000 × the median), then the "
           "largest inputs, token by token; choosing one goes there"));
    strong_box_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    strong_box_->setMinimumContentsLength(24);
    for (QWidget* widget : {static_cast<QWidget*>(text_button_), static_cast<QWidget*>(tokens_box_),
                            static_cast<QWidget*>(stretch_box_)})
        controls()->addWidget(widget);
    addColorControls();
    controls()->addWidget(strong_box_);
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
    connect(strong_box_, &QComboBox::activated, this, [this](int index) {
        const QPoint cell = strong_box_->itemData(index).toPoint();
        if (strong_box_->itemData(index).isValid())
            choose(cell.y(), cell.x());
    });
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
    other_.reset(); // it belongs to the picture before
    rebuild();
    if (picture_ && !known)
        showMessage(tr("No token of this text reaches %1.").arg(group_));
}

void ActivationsPlot::setOther(std::shared_ptr<const OtherActivations> other, const QString& name)
{
    const bool before = !other_name_.isEmpty();
    other_ = std::move(other);
    other_name_ = name;
    const bool now = !other_name_.isEmpty();
    if (now && !before) // a difference has a sign
        signed_alone_ = isSigned();
    if (now != before)
        setSigned(now || signed_alone_);
    rebuildMaps();
}

void ActivationsPlot::rebuildMaps()
{
    std::vector<Map> maps;
    if (tokenCount() > 0) {
        const bool compared = !other_name_.isEmpty();
        maps.push_back({compared ? tr("A") : QString(), picture_->values});
        if (other_ && other_->difference) {
            maps.push_back({tr("B: %1").arg(other_name_), other_->picture->values});
            maps.push_back({tr("B − A"), other_->difference});
        }
    }
    setMaps(maps);
}

void ActivationsPlot::setAxes(bool narrow)
{
    setAxis(Qt::Horizontal, AxisKind::Whole, narrow ? QString() : tr("input channel"));
    setAxis(Qt::Vertical, AxisKind::Whole, QString());
    plot()->yAxis->setTicker(QSharedPointer<TokenTicker>::create(texts_, plot()->yAxis));
}

QString ActivationsPlot::valueName(bool is_signed) const { return is_signed ? tr("x") : tr("|x|"); }

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
    rebuildList();
    rebuildMaps();
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

QString ActivationsPlot::cellText(Index token, Index channel) const
{
    QStringList values;
    for (const Map& map : maps()) {
        const QString value = formatNumber((*map.values)(token, channel));
        values.append(map.name.isEmpty() ? value : tr("%1 %2").arg(map.name, value));
    }
    return tr("Token %1 %2, channel %3: %4")
        .arg(picture_->activations.positions[static_cast<std::size_t>(token)])
        .arg(texts_.value(token))
        .arg(channel)
        .arg(values.join(QStringLiteral(", ")));
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
    if (other_ && other_->difference)
        parts.append(tr("B: median |x| %1, largest %2 · B − A: largest %3, RMS %4")
                         .arg(formatNumber(other_->picture->activations.median_abs),
                              formatNumber(other_->picture->values->largest()),
                              formatNumber(other_->difference->largest()),
                              formatNumber(other_->difference->rms())));
    else if (other_)
        parts.append(tr("B reads other tokens, or as many of another size: only A is drawn"));
    if (row() >= 0 && column() >= 0)
        parts.append(cellText(row(), column()));
    else if (column() >= 0)
        parts.append(tr("channel %1 is framed").arg(column()));
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
    const bool compared = other_ && other_->difference;
    if (compared)
        rows.first() << tr("x there in B") << tr("Δ");
    const TokenActivations& all = picture_->activations;
    for (const TokenEntry& peak : all.strongest) {
        const Index position = all.positions[static_cast<std::size_t>(peak.token)];
        rows.append({QString::number(position), texts_.value(peak.token),
                     QString::number(all.stretch.tokens[static_cast<std::size_t>(position)]),
                     QString::number(peak.channel), formatExact(peak.value)});
        if (compared)
            rows.last() << formatExact((*other_->picture->values)(peak.token, peak.channel))
                        << formatExact((*other_->difference)(peak.token, peak.channel));
    }
    return rows;
}

} // namespace rankscope
