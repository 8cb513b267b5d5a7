// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/pictures.h"

#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"

#include <optional>

namespace rankscope {

namespace {

// Below this many weights all spectra take a few seconds, so they are measured without being asked for.
constexpr Index k_small_model_weights = 4'000'000;

using CalibrationPointer = std::shared_ptr<const CalibrationStore>;

Result<std::optional<Moments>> momentsOf(const Model& model, const CalibrationPointer& calibration,
                                         const LinearLayer& layer)
{
    if (!calibration)
        return std::optional<Moments>();
    auto moments = layer_moments(*calibration, model, layer);
    if (!moments)
        return moments.error().in(layer.name);
    return std::optional<Moments>(std::move(*moments));
}

using SpectrumPointer = std::shared_ptr<const LayerSpectrum>;

Result<SpectrumPointer> computeSpectrum(const Model& model, const CalibrationPointer& calibration,
                                        const LinearLayer& layer, const UniformGrid& grid, Backend& backend,
                                        Monitor& monitor)
{
    const auto weight = model.weight(layer);
    if (!weight)
        return weight.error();
    const auto moments = momentsOf(model, calibration, layer);
    if (!moments)
        return moments.error();
    const Moments* given = *moments ? &**moments : nullptr;
    return SpectrumPointer(
        std::make_shared<LayerSpectrum>(layer_spectrum(*weight, given, grid, backend, monitor)));
}

} // namespace

Pictures::Pictures(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QObject* parent)
    : QObject(parent), session_(session), runner_(runner), device_(std::move(device)), latest_(runner)
{
    settle_.setSingleShot(true);
    settle_.setInterval(250);
    connect(&settle_, &QTimer::timeout, this, &Pictures::measureIfSmall);
    connect(&session_, &Session::modelChanged, this, [this] {
        profiles_.clear();
        shown_spectrum_.clear();
        give_up_ = false;
        runner_.cancel(measure_job_);
        latest_.drop(QStringLiteral("channels"));
        latest_.drop(QStringLiteral("spectrum"));
    });
    connect(&session_, &Session::calibrationChanged, this, [this] {
        profiles_.clear();
        requestOverview();
        update();
    });
    connect(&session_, &Session::planChanged, this, [this] {
        // Another grid gives another residual; a dragged rank does not.
        if (!session_.selection().layer.isEmpty())
            requestSpectrum(session_.selection().layer);
        settle_.start();
    });
    connect(&session_, &Session::selectionChanged, this, [this](const Selection& selection) {
        if (selection.layer == drawn_layer_) // only another channel
            return;
        drawn_layer_ = selection.layer;
        update();
    });
}

void Pictures::update()
{
    const QString layer = session_.selection().layer;
    if (layer.isEmpty() || !session_.model())
        return;
    requestChannels(layer);
    requestSpectrum(layer);
}

void Pictures::requestOverview()
{
    if (!session_.model() || !session_.calibration()) {
        latest_.drop(QStringLiteral("overview"));
        Q_EMIT overviewReady(nullptr);
        return;
    }
    using Answer = std::shared_ptr<const ChannelMap>;
    latest_.request<Answer>(
        QStringLiteral("overview"), {QStringLiteral("Overview of the model"), JobLane::View, false}, this,
        [model = session_.model(),
         calibration = session_.calibration()](JobMonitor& monitor) -> Result<Answer> {
            auto map = channel_map(*calibration, *model, monitor);
            if (!map)
                return map.error();
            return Answer(std::make_shared<ChannelMap>(std::move(*map)));
        },
        [this](const Result<Answer>& answer) {
            Q_EMIT overviewReady(answer ? *answer : nullptr);
            if (!answer && answer.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(answer.error());
        });
}

void Pictures::requestChannels(const QString& layer)
{
    if (const auto known = profiles_.value(layer)) {
        latest_.drop(QStringLiteral("channels"));
        Q_EMIT channelsReady(layer, known);
        return;
    }
    Q_EMIT channelsBusy();
    using Answer = std::shared_ptr<const ChannelProfile>;
    latest_.request<Answer>(
        QStringLiteral("channels"), {QStringLiteral("Channels of %1").arg(layer), JobLane::View, false}, this,
        [model = session_.model(), calibration = session_.calibration(),
         name = toStd(layer)](JobMonitor& monitor) -> Result<Answer> {
            const LinearLayer* linear = model->find_linear(name);
            if (!linear)
                return usage_error("There is no such layer", name);
            const auto weight = model->weight(*linear);
            if (!weight)
                return weight.error();
            monitor.throw_if_cancelled();
            const auto moments = momentsOf(*model, calibration, *linear);
            if (!moments)
                return moments.error();
            return Answer(
                std::make_shared<ChannelProfile>(channel_profile(*weight, *moments ? &**moments : nullptr)));
        },
        [this, layer](const Result<Answer>& answer) {
            if (!answer) {
                Q_EMIT channelsReady(layer, nullptr);
                if (answer.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(answer.error());
                return;
            }
            profiles_.insert(layer, *answer);
            Q_EMIT channelsReady(layer, *answer);
        });
}

void Pictures::requestSpectrum(const QString& layer)
{
    const QString key = session_.spectrumKey(layer);
    if (key == shown_spectrum_)
        return;
    shown_spectrum_ = key;
    if (const auto known = session_.spectrum(layer)) {
        latest_.drop(QStringLiteral("spectrum"));
        Q_EMIT spectrumReady(layer, known);
        return;
    }
    const LinearLayer* linear = session_.model() ? session_.model()->find_linear(toStd(layer)) : nullptr;
    if (!linear)
        return;
    Q_EMIT spectrumBusy();
    const LayerPlan* row = session_.planRow(layer);
    latest_.request<SpectrumPointer>(
        QStringLiteral("spectrum"), {QStringLiteral("Spectrum of %1").arg(layer), JobLane::View, false}, this,
        [model = session_.model(), calibration = session_.calibration(), wanted = *linear,
         grid = row ? rowGrid(*row) : UniformGrid{}, device = device_](JobMonitor& monitor) {
            return computeSpectrum(*model, calibration, wanted, grid, *device->cpu(), monitor);
        },
        [this, layer, key](const Result<SpectrumPointer>& answer) {
            if (answer) {
                session_.addSpectrum(key, *answer);
                Q_EMIT spectrumReady(layer, *answer);
                return;
            }
            shown_spectrum_.clear();
            Q_EMIT spectrumReady(layer, nullptr);
            if (answer.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(answer.error());
        });
}

QStringList Pictures::unmeasured() const
{
    QStringList layers;
    for (const LayerPlan& row : session_.plan().rows) {
        if (row.include && !session_.spectrum(toQString(row.layer)))
            layers << toQString(row.layer);
    }
    return layers;
}

void Pictures::measureIfSmall()
{
    if (measuring_ || give_up_ || !session_.model() || !session_.calibration())
        return;
    Index weights = 0;
    for (const LinearLayer& layer : session_.model()->linears())
        weights += layer.out * layer.in;
    if (weights <= k_small_model_weights)
        measure();
}

void Pictures::measure()
{
    const QStringList layers = unmeasured();
    if (measuring_ || layers.isEmpty() || !session_.model())
        return;
    measuring_ = true;
    struct Task {
        QString key;
        LinearLayer layer;
        UniformGrid grid;
    };
    QVector<Task> tasks;
    for (const QString& layer : layers) {
        const LinearLayer* linear = session_.model()->find_linear(toStd(layer));
        if (linear)
            tasks.append({session_.spectrumKey(layer), *linear, rowGrid(*session_.planRow(layer))});
    }
    using Nothing = bool;
    measure_job_ = runner_.start<Nothing>(
        {QStringLiteral("Measure %1 layers").arg(tasks.size()), JobLane::View, true}, this,
        [this, tasks, model = session_.model(), calibration = session_.calibration(),
         device = device_](JobMonitor& monitor) -> Result<Nothing> {
            for (qsizetype i = 0; i < tasks.size(); ++i) {
                monitor.throw_if_cancelled();
                const Task& task = tasks[i];
                const auto answer =
                    computeSpectrum(*model, calibration, task.layer, task.grid, *device->cpu(), monitor);
                if (!answer)
                    return answer.error();
                // Handed over one by one: the table fills while the rest is measured.
                QMetaObject::invokeMethod(
                    this,
                    [this, model, key = task.key, spectrum = *answer] {
                        if (session_.model() == model)
                            session_.addSpectrum(key, spectrum);
                    },
                    Qt::QueuedConnection);
                monitor.report(static_cast<std::uint64_t>(i) + 1, static_cast<std::uint64_t>(tasks.size()),
                               "layers");
            }
            return true;
        },
        [this, model = session_.model()](const Result<Nothing>& answer) {
            measuring_ = false;
            if (session_.model() != model) {
                settle_.start();
                return;
            }
            if (!answer) {
                give_up_ = true;
                if (answer.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(answer.error());
            } else if (!unmeasured().isEmpty()) {
                settle_.start(); // the plan changed meanwhile
            }
        });
}

} // namespace rankscope
