// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/workflow.h"

#include "app/workbench/models/number_format.h"
#include "app/workbench/models/run_model.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "app/workbench/workflow_steps.h"
#include "core/methods/method.h"

#include <QDateTime>
#include <QDir>

#include <algorithm>

namespace rankscope {

namespace {

bool needsCalibration(const Plan& plan)
{
    return std::any_of(plan.rows.begin(), plan.rows.end(), [](const LayerPlan& row) {
        const Method* method = find_method(row.method);
        return row.include && method && method->info().needs.hessian;
    });
}

QString runFolder(const QString& work_folder, const Plan& plan)
{
    const auto first =
        std::find_if(plan.rows.begin(), plan.rows.end(), [](const LayerPlan& row) { return row.include; });
    const QString method = first == plan.rows.end() ? QStringLiteral("none") : toQString(first->method);
    return QStringLiteral("%1/runs/%2-%3")
        .arg(work_folder, QDateTime::currentDateTimeUtc().toString(QStringLiteral("yyyyMMdd-HHmmss-zzz")),
             method);
}

} // namespace

Workflow::Workflow(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QString work_root,
                   QObject* parent)
    : QObject(parent), session_(session), runner_(runner), device_(std::move(device)),
      work_root_(std::move(work_root))
{
    connect(&session_, &Session::modelChanged, this, [this] {
        if (!calibrating_)
            return;
        runner_.cancel(calibration_job_); // of the checkpoint that was open until now
        calibrating_ = false;
        run_after_calibration_.reset();
    });
}

void Workflow::prepareDevice()
{
    using Names = std::pair<QString, QString>;
    runner_.start<Names>(
        {QStringLiteral("Open the compute device"), JobLane::View, false}, this,
        [device = device_](JobMonitor&) -> Result<Names> {
            const QString name = toQString(device->backend()->name());
            const auto fallback = device->fallback();
            return Names(name, fallback ? toQString(fallback->sentence()) : QString());
        },
        [this](const Result<Names>& names) {
            if (!names)
                return;
            told_fallback_ = !names->second.isEmpty();
            Q_EMIT deviceReady(names->first, names->second);
        });
}

/// Once: after a job that found the device lost.
void Workflow::tellLostDevice()
{
    const auto fallback = device_->fallback();
    if (!fallback || std::exchange(told_fallback_, true))
        return;
    Q_EMIT deviceReady(toQString(device_->backend()->name()), toQString(fallback->sentence()));
}

void Workflow::openPath(const QString& path) { open(path, false); }
void Workflow::openSample() { open({}, true); }

void Workflow::open(const QString& path, bool sample)
{
    if (opening_)
        return;
    if (running_) {
        Q_EMIT message(QStringLiteral("A run is under way: cancel it before opening another checkpoint"));
        return;
    }
    opening_ = true;
    Q_EMIT openingChanged(true);
    const QString title = sample ? QStringLiteral("the sample model") : path;
    runner_.start<OpenedModel>(
        {QStringLiteral("Open %1").arg(title), JobLane::View, true}, this,
        [path, root = work_root_](JobMonitor& monitor) { return steps::open(path, root, monitor); },
        [this, title, path](const Result<OpenedModel>& opened) {
            opening_ = false;
            Q_EMIT openingChanged(false);
            if (opened)
                finishOpening(*opened, path);
            else if (opened.error().kind != ErrorKind::Cancelled)
                Q_EMIT failed(QStringLiteral("Not opened"), opened.error());
        });
}

void Workflow::finishOpening(const OpenedModel& opened_model, const QString& path)
{
    session_.open(opened_model);
    const auto& run = session_.run();
    beginPlan(opened_model, path);
    if (!session_.model()->linears().empty())
        session_.selectLayer(toQString(session_.model()->linears().front().name));
    Q_EMIT opened();
    Q_EMIT message(QStringLiteral("Opened %1").arg(session_.title()));
    if (session_.undoStack().count() > 0)
        Q_EMIT planRestored(opened_model.plan.has_value());
    if (run && !run->complete()) {
        const auto& rows = run->plan().rows;
        const auto all =
            std::count_if(rows.begin(), rows.end(), [](const LayerPlan& row) { return row.include; });
        Q_EMIT pausedRunFound(static_cast<int>(run->results().size()), static_cast<int>(all));
    }
    // The sample must show its outliers without a question; on a stranger's model a long job is his to start.
    if (!session_.calibration() || !session_.model()->architecture().runs()) {
        if (session_.isSample())
            calibrate({});
        else
            askForCalibration(
                QStringLiteral("No calibration yet: outlier channels and methods such as ODLRI need "
                               "to see what flows into each layer."));
    }
}

/// The plan of the project, of the run that was opened, or the preset; then, as a step that can be undone,
/// what the last session made of it.
void Workflow::beginPlan(const OpenedModel& opened, const QString& path)
{
    const auto& run = session_.run();
    const bool of_run = run && !run->plan().rows.empty() && !path.isEmpty() && Run::is_run(toPath(path));
    if (opened.plan)
        session_.resetPlan(*opened.plan);
    else if (of_run)
        session_.resetPlan(run->plan());
    else
        applyPreset(defaultPresetId(*session_.model()), false);
    if (restore_plan_ && !of_run && opened.autosaved && opened.autosaved->check(*session_.model()))
        session_.editPlan(QStringLiteral("edits of the last session"), *opened.autosaved);
}

void Workflow::askForCalibration(const QString& why)
{
    const Status runs = session_.model()->architecture().runs();
    if (runs)
        Q_EMIT calibrationNeeded(why);
    else
        Q_EMIT weightsOnly(toQString(runs.error().sentence()));
}

void Workflow::calibrate(const QString& text_file)
{
    if (!session_.model() || calibrating_)
        return;
    calibrating_ = true;
    const auto model = session_.model();
    calibration_job_ = runner_.start<steps::Calibrated>(
        {QStringLiteral("Calibrate"), JobLane::Work, true}, this,
        [model, text_file, folder = session_.workFolder(), device = device_](JobMonitor& monitor) {
            return computeOn(*device, monitor, [&](Backend& backend) {
                return steps::calibrate(model, text_file, folder, backend, monitor);
            });
        },
        [this, model](const Result<steps::Calibrated>& done) {
            tellLostDevice();
            if (session_.model() != model)
                return;
            calibrating_ = false;
            const auto waiting = std::exchange(run_after_calibration_, std::nullopt);
            if (!done) {
                if (done.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(QStringLiteral("Not calibrated"), done.error());
                return;
            }
            session_.setCalibration(done->store, done->figures);
            Q_EMIT message(QStringLiteral("Calibrated on %1 tokens of %2")
                               .arg(formatCount(static_cast<qint64>(done->store->source().tokens)))
                               .arg(toQString(done->store->source().text_file)));
            if (waiting)
                run(*waiting);
        });
}

void Workflow::applyPreset(const QString& id, bool undoable)
{
    if (!session_.model())
        return;
    const auto presets = planPresets();
    const auto chosen = std::find_if(presets.cbegin(), presets.cend(),
                                     [&](const PlanPreset& preset) { return preset.id == id; });
    if (chosen == presets.cend())
        return;
    auto plan = presetPlan(*chosen, *session_.model());
    if (!plan) {
        Q_EMIT failed(QStringLiteral("The preset was not applied"), plan.error());
        return;
    }
    if (!undoable) {
        session_.resetPlan(std::move(*plan));
        return;
    }
    int kept = 0; // locked rows stay as they are
    for (LayerPlan& row : plan->rows) {
        const LayerPlan* before = session_.plan().find(row.layer);
        if (before && before->locked) {
            row = *before;
            ++kept;
        }
    }
    session_.editPlan(QStringLiteral("preset %1").arg(chosen->title), std::move(*plan));
    Q_EMIT message(kept == 0 ? chosen->title
                             : QStringLiteral("%1 · %2 locked rows kept").arg(chosen->title).arg(kept));
}

void Workflow::run(const QStringList& layers)
{
    if (!session_.model() || running_)
        return;
    Plan plan = session_.plan();
    if (!layers.isEmpty()) {
        for (LayerPlan& row : plan.rows)
            row.include = row.include && layers.contains(toQString(row.layer));
    }
    const bool any =
        std::any_of(plan.rows.begin(), plan.rows.end(), [](const LayerPlan& row) { return row.include; });
    if (!any) {
        Q_EMIT failed(
            QStringLiteral("Nothing to run"),
            usage_error("No layer of the plan is included", {}, "Switch on at least one row of the plan"));
        return;
    }
    if (needsCalibration(plan) && !session_.calibration()) {
        if (calibrating_) {
            run_after_calibration_ = layers;
            Q_EMIT message(QStringLiteral("The run starts as soon as the calibration is done"));
        } else {
            askForCalibration(QStringLiteral("This plan needs a calibration."));
        }
        return;
    }
    const QString folder = runFolder(session_.workFolder(), plan);
    startRun(std::move(plan), folder, false);
}

void Workflow::resume()
{
    const auto run = session_.run();
    if (!session_.model() || !run || run->complete() || running_)
        return;
    if (needsCalibration(run->plan()) && !session_.calibration()) {
        askForCalibration(QStringLiteral("The paused run needs its calibration."));
        return;
    }
    session_.editPlan(QStringLiteral("plan of the paused run"), run->plan());
    startRun(run->plan(), pathText(run->path()), true);
}

void Workflow::retryRun(const QString& folder)
{
    if (session_.run() && pathText(session_.run()->path()) == folder)
        resume();
    else
        Q_EMIT message(QStringLiteral("Another run is open now: open %1 to go on with it").arg(folder));
}

void Workflow::startRun(Plan plan, const QString& folder, bool resume)
{
    running_ = true;
    QStringList layers;
    for (const LayerPlan& row : plan.rows) {
        if (row.include)
            layers << toQString(row.layer);
    }
    const auto control = std::make_shared<RunControl>();
    const steps::RunRequest request{session_.model(), std::move(plan), session_.calibration(),
                                    folder,           resume,          control};
    JobSpec spec{QStringLiteral("Compress %1 layers").arg(layers.size())};
    spec.pause = [control] { control->pause(); };
    spec.run_next = [control](const QString& layer) { control->run_next(toStd(layer)); };
    spec.retry = [this, folder] { retryRun(folder); };
    Q_EMIT runStarted();
    runner_.start<steps::RunOutcome>(
        spec, this,
        [request, layers, device = device_](JobMonitor& monitor) {
            monitor.setItems(layers);
            KernelWatch watch(device->backend(), monitor);
            return steps::run(request, watch.backend(), monitor);
        },
        [this, model = request.model, folder](const Result<steps::RunOutcome>& done) {
            running_ = false;
            if (std::exchange(discard_, false)) {
                removeFolder(folder);
                Q_EMIT runFinished();
                return;
            }
            if (session_.model() != model)
                return;
            if (!done) {
                if (done.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(QStringLiteral("The run failed"), done.error());
                Q_EMIT runFinished();
                return;
            }
            if (done->run)
                session_.setRun(done->run);
            Q_EMIT runFinished();
            if (done->error && done->error->kind == ErrorKind::Cancelled) {
                const auto finished = done->run ? done->run->results().size() : 0;
                Q_EMIT message(QStringLiteral("Stopped · %1 finished layers are kept").arg(finished));
                return;
            }
            if (done->error)
                Q_EMIT failed(QStringLiteral("The run is not complete"), *done->error);
            if (done->run && !done->run->results().empty() && session_.model()->architecture().runs())
                evaluate();
        });
}

void Workflow::removeFolder(const QString& folder)
{
    if (!folder.startsWith(work_root_)
        && !folder.startsWith(session_.workFolder()
                              + QLatin1Char('/'))) // a run opened from elsewhere is not ours to delete
        return;
    runner_.start<bool>(
        {QStringLiteral("Remove the discarded run"), JobLane::View, false}, this,
        [folder](JobMonitor&) -> Result<bool> { return QDir(folder).removeRecursively(); },
        [this, folder](const Result<bool>& done) {
            if (!done || !*done)
                Q_EMIT message(QStringLiteral("%1 could not be removed").arg(folder));
        });
}

void Workflow::evaluate()
{
    if (!session_.model() || !session_.run())
        return;
    const steps::EvaluationRequest request{session_.model(), session_.run(), evaluation_text_, before_};
    runner_.start<steps::EvaluationOutcome>(
        {QStringLiteral("Evaluate perplexity before and after"), JobLane::Work, true}, this,
        [request, device = device_](JobMonitor& monitor) {
            return computeOn(*device, monitor, [&](Backend& backend) {
                return steps::evaluate(request, backend, monitor);
            });
        },
        [this, run = session_.run()](const Result<steps::EvaluationOutcome>& done) {
            tellLostDevice();
            if (session_.run() != run)
                return;
            if (!done) {
                if (done.error().kind != ErrorKind::Cancelled)
                    Q_EMIT failed(QStringLiteral("Perplexity was not measured"), done.error());
                return;
            }
            before_.insert(done->key, done->evaluation.before);
            session_.setEvaluation(done->evaluation);
            Q_EMIT message(
                QStringLiteral("Perplexity %1 before, %2 after")
                    .arg(perplexityText(done->evaluation.before), perplexityText(done->evaluation.after)));
            Q_EMIT evaluated();
        });
}

void Workflow::requestExportOutlook(const QString& folder)
{
    if (!session_.run() || !session_.model())
        return;
    runner_.start<ExportOutlook>(
        {QStringLiteral("Look at export formats"), JobLane::View, false}, this,
        [run = session_.run(), model = session_.model(), folder](JobMonitor&) -> Result<ExportOutlook> {
            return steps::outlook(*run, *model, folder);
        },
        [this](const Result<ExportOutlook>& outlook) {
            if (outlook)
                Q_EMIT exportOutlookReady(*outlook);
            else
                Q_EMIT failed(QStringLiteral("Export formats are not known"), outlook.error());
        });
}

void Workflow::exportRun(const QString& format, const QString& folder, ExportOptions options)
{
    if (!session_.run() || !session_.model())
        return;
    runner_.start<ExportOutcome>(
        {QStringLiteral("Export as %1").arg(format), JobLane::Work, true}, this,
        [run = session_.run(), model = session_.model(), format, folder,
         options](JobMonitor& monitor) -> Result<ExportOutcome> {
            ExportOutcome outcome = steps::exportRun(*run, *model, format, folder, options, monitor);
            if (outcome.error)
                return *outcome.error; // the job panel shows it as failed
            return outcome;
        },
        [this, format, folder](const Result<ExportOutcome>& done) {
            if (done) {
                Q_EMIT exported(*done);
                Q_EMIT message(QStringLiteral("Exported to %1").arg(folder));
            } else {
                Q_EMIT exported({format, folder, 0, done.error(), {}});
            }
        });
}

} // namespace rankscope
