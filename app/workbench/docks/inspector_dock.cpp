// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/docks/inspector_dock.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "app/workbench/widgets/eliding_label.h"
#include "core/methods/method.h"

#include <QEvent>
#include <QFormLayout>
#include <QLabel>
#include <QScrollArea>

#include <numeric>

namespace rankscope {

namespace {

const QString k_model = QStringLiteral("Model");
const QString k_size = QStringLiteral("Size");
const QString k_calibration = QStringLiteral("Calibration");
const QString k_work = QStringLiteral("Working folder");
const QString k_shape = QStringLiteral("Shape");
const QString k_input = QStringLiteral("Shares input with");
const QString k_rms = QStringLiteral("Input RMS");
const QString k_crest = QStringLiteral("Input max/RMS");
const QString k_kurtosis = QStringLiteral("Input kurtosis");
const QString k_outliers = QStringLiteral("Outlier channels");
const QString k_planned = QStringLiteral("Planned");
const QString k_predicted = QStringLiteral("Predicted error");
const QString k_result = QStringLiteral("Measured error");
const QString k_channel = QStringLiteral("Channel");
const QString k_channel_weight = QStringLiteral("Weight max");
const QString k_channel_energy = QStringLiteral("Share of energy");
const QString k_channel_hessian = QStringLiteral("H_jj");

/// What a scroll area shows: as high as its wrapped lines are at this width, which the area itself does not ask.
class WrappedPage : public QWidget {
protected:
    bool event(QEvent* event) override
    {
        const bool done = QWidget::event(event);
        if ((event->type() == QEvent::Resize || event->type() == QEvent::LayoutRequest) && layout())
            setMinimumHeight(layout()->heightForWidth(width()));
        return done;
    }
};

QString shortWorkFolder(const QString& folder) { return folder.section(QLatin1Char('/'), -2); }

} // namespace

InspectorDock::InspectorDock(Session& session, QWidget* parent)
    : QDockWidget(QStringLiteral("Inspector"), parent), session_(session), form_(new QFormLayout)
{
    setObjectName(QStringLiteral("inspector_dock"));
    form_->setContentsMargins(8, 4, 8, 8);
    form_->setHorizontalSpacing(12);
    form_->setVerticalSpacing(3);
    form_->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
    form_->setLabelAlignment(Qt::AlignLeft | Qt::AlignTop);
    addSection(QStringLiteral("Checkpoint"));
    for (const QString& name : {k_model, k_size, k_calibration, k_work})
        set(name, {});
    layer_title_ = new ElidingLabel(QStringLiteral("Selected layer"), Qt::ElideLeft);
    QFont bold = layer_title_->font();
    bold.setBold(true);
    layer_title_->setFont(bold);
    layer_title_->setContentsMargins(0, 8, 0, 0);
    form_->addRow(layer_title_);
    for (const QString& name :
         {k_shape, k_input, k_rms, k_crest, k_kurtosis, k_outliers, k_planned, k_predicted, k_result})
        set(name, {});
    addSection(QStringLiteral("Selected channel"));
    for (const QString& name : {k_channel, k_channel_weight, k_channel_hessian, k_channel_energy})
        set(name, {});

    auto* content = new WrappedPage;
    content->setLayout(form_);
    auto* scroll = new QScrollArea;
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
    scroll->setWidget(content);
    scroll->setAccessibleName(QStringLiteral("Numbers of the selection"));
    setWidget(scroll);

    for (const auto change :
         {&Session::modelChanged, &Session::calibrationChanged, &Session::planChanged, &Session::runChanged})
        connect(&session_, change, this, &InspectorDock::refresh);
    connect(&session_, &Session::selectionChanged, this, &InspectorDock::refresh);
    connect(&session_, &Session::spectraChanged, this, &InspectorDock::refresh);
    refresh();
}

void InspectorDock::addSection(const QString& title)
{
    auto* label = new QLabel(title);
    QFont font = label->font();
    font.setBold(true);
    label->setFont(font);
    if (form_->rowCount() > 0)
        label->setContentsMargins(0, 8, 0, 0);
    form_->addRow(label);
}

void InspectorDock::set(const QString& name, const QString& value, const QString& tool_tip)
{
    QLabel*& label = values_[name];
    if (!label) {
        label = new QLabel;
        label->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
        label->setWordWrap(true);
        label->setMinimumWidth(60);
        label->setAccessibleName(name);
        form_->addRow(name, label);
    }
    const QString shown = value.isEmpty() ? noValue() : value;
    if (label->text() != shown)
        label->setText(shown);
    label->setAccessibleDescription(shown);
    label->setToolTip(tool_tip);
}

QString InspectorDock::value(const QString& name) const
{
    const QLabel* label = values_.value(name);
    return label ? label->text() : QString();
}

void InspectorDock::setProfile(const QString& layer, std::shared_ptr<const ChannelProfile> profile)
{
    profile_layer_ = layer;
    profile_ = std::move(profile);
    refresh();
}

void InspectorDock::setOutliers(const QVector<int>& channels)
{
    outliers_ = channels;
    refresh();
}

void InspectorDock::refresh()
{
    showModel();
    showLayer();
    showChannel();
}

void InspectorDock::showModel()
{
    const auto& model = session_.model();
    if (!model) {
        for (const QString& name : {k_model, k_size, k_calibration, k_work})
            set(name, {});
        return;
    }
    std::uint64_t bytes = 0;
    std::int64_t values = 0;
    for (const TensorInfo& tensor : model->checkpoint().tensors()) {
        bytes += tensor.bytes;
        values += element_count(tensor.shape);
    }
    const ModelConfig& config = model->config();
    const QString family = toQString(model->architecture().title());
    if (const Status runs = model->architecture().runs(); !runs)
        set(k_model, QStringLiteral("%1: not known, weights only").arg(family),
            toQString(runs.error().sentence()));
    else
        set(k_model,
            QStringLiteral("%1, %2 blocks, width %3").arg(family).arg(config.blocks).arg(config.hidden),
            pathText(model->path()));
    set(k_size,
        QStringLiteral("%1 values, %2").arg(formatCount(values), formatBytes(static_cast<qint64>(bytes))),
        QStringLiteral("%1 bytes").arg(formatCount(static_cast<qint64>(bytes))));
    const auto& calibration = session_.calibration();
    set(k_calibration,
        calibration ? QStringLiteral("%1 tokens of %2")
                          .arg(formatCount(static_cast<qint64>(calibration->source().tokens)),
                               toQString(calibration->source().text_file))
                    : QStringLiteral("none"),
        calibration ? pathText(calibration->path()) : QString());
    set(k_work, QStringLiteral("…/%1").arg(shortWorkFolder(session_.workFolder())), session_.workFolder());
}

void InspectorDock::showLayer()
{
    const Selection& selection = session_.selection();
    const LinearLayer* layer =
        session_.model() ? session_.model()->find_linear(toStd(selection.layer)) : nullptr;
    const QString tensor = selection.layer.isEmpty() ? selection.tensor : selection.layer;
    layer_title_->setFullText(tensor.isEmpty() ? QStringLiteral("No layer selected") : tensor);
    if (!layer) {
        for (const QString& name :
             {k_shape, k_input, k_rms, k_crest, k_kurtosis, k_outliers, k_planned, k_predicted, k_result})
            set(name, {});
        return;
    }
    set(k_shape, QStringLiteral("%1 outputs × %2 inputs").arg(layer->out).arg(layer->in));
    QStringList partners;
    for (const LinearLayer& other : session_.model()->linears()) {
        if (other.input_group == layer->input_group && other.name != layer->name)
            partners << toQString(short_name(other.role));
    }
    set(k_input, partners.isEmpty() ? QStringLiteral("no other layer") : partners.join(QStringLiteral(", ")));
    const auto figures = session_.figures(selection.layer);
    set(k_rms, figures ? formatMeasured(figures->rms) : QString(),
        figures ? formatExact(figures->rms) : QString());
    set(k_crest, figures ? formatMeasured(figures->crest) : QString(),
        figures ? formatExact(figures->crest) : QString());
    set(k_kurtosis, figures ? formatMeasured(figures->kurtosis) : QString(),
        figures ? formatExact(figures->kurtosis) : QString());
    set(k_outliers, profile_ && profile_layer_ == selection.layer
                        ? QStringLiteral("%1 by the threshold shown").arg(outliers_.size())
                        : QString());

    const LayerPlan* row = session_.planRow(selection.layer);
    const Method* method = row ? find_method(row->method) : nullptr;
    QString planned;
    if (row && !row->include) {
        planned = QStringLiteral("kept as it is");
    } else if (row) {
        planned = method ? toQString(method->info().title) : toQString(row->method);
        if (const auto bits = rowInteger(*row, "bits"))
            planned += QStringLiteral(", %1-bit").arg(*bits);
        if (const auto rank = rowInteger(*row, "rank"))
            planned += QStringLiteral(", rank %1").arg(*rank);
        planned += QStringLiteral(", %1 bits per weight")
                       .arg(formatMeasured(planned_bits_per_weight(*row, *layer), 3));
    }
    set(k_planned, planned);
    const auto predicted = row ? session_.predictedError(*row) : std::nullopt;
    set(k_predicted,
        predicted ? QStringLiteral("%1 with plain rounding").arg(formatMeasured(*predicted)) : QString(),
        predicted ? formatExact(*predicted) : QString());
    QString measured;
    if (session_.run()) {
        for (const LayerResult& result : session_.run()->results()) {
            if (result.layer == layer->name)
                measured = QStringLiteral("%1 of the output, %2 of the weight")
                               .arg(formatMeasured(result.quality.relative_activation_error),
                                    formatMeasured(result.quality.relative_error));
        }
    }
    set(k_result, measured);
}

void InspectorDock::showChannel()
{
    const Selection& selection = session_.selection();
    const int channel = selection.channel;
    const bool known = profile_ && profile_layer_ == selection.layer && channel >= 0
                       && channel < profile_->weight_max_abs.size();
    if (!known) {
        set(k_channel, channel >= 0 ? QString::number(channel) : QString());
        for (const QString& name : {k_channel_weight, k_channel_hessian, k_channel_energy})
            set(name, {});
        return;
    }
    const auto at = [channel](const VectorD& values) {
        return channel < values.size() ? values[channel] : std::numeric_limits<double>::quiet_NaN();
    };
    const double total = profile_->weighted_energy.sum();
    set(k_channel, QStringLiteral("%1%2").arg(channel).arg(
                       outliers_.contains(channel) ? QStringLiteral(" ▲ outlier") : QString()));
    set(k_channel_weight, formatMeasured(at(profile_->weight_max_abs)),
        formatExact(at(profile_->weight_max_abs)));
    set(k_channel_hessian, formatMeasured(at(profile_->hessian_diagonal)),
        formatExact(at(profile_->hessian_diagonal)));
    set(k_channel_energy, total > 0.0 ? formatPercent(at(profile_->weighted_energy) / total) : QString());
}

} // namespace rankscope
