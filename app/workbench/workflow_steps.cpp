// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/workflow_steps.h"

#include "app/workbench/folders.h"
#include "app/workbench/project_steps.h"
#include "app/workbench/text.h"
#include "core/export/exporter.h"

#include <QDir>
#include <QFileInfo>

namespace rankscope::steps {

namespace {

InputFiguresByGroup readFigures(const CalibrationStore& store, Monitor& monitor)
{
    InputFiguresByGroup figures;
    std::uint64_t done = 0;
    for (const std::string& group : store.groups()) {
        monitor.throw_if_cancelled();
        if (const auto statistics = store.statistics(group))
            figures.insert(toQString(group),
                           {statistics->tensor_rms(), statistics->crest(), statistics->tensor_kurtosis(),
                            static_cast<qint64>(statistics->outlier_channels()), statistics->tokens()});
        monitor.report(++done, store.groups().size(), "statistics");
    }
    return figures;
}

/// The newest calibration of an earlier session that belongs to this model; null when there is none.
std::shared_ptr<const CalibrationStore> earlierCalibration(const QString& work_folder, const Model& model)
{
    const QDir folder(work_folder);
    for (const QFileInfo& entry :
         folder.entryInfoList({QStringLiteral("calibration"), QStringLiteral("calibration-*")},
                              QDir::Dirs | QDir::NoDotAndDotDot, QDir::Time)) {
        const auto store = CalibrationStore::open(toPath(entry.absoluteFilePath()));
        if (store && (*store)->check(model))
            return *store;
    }
    return nullptr;
}

std::shared_ptr<const Run> earlierRun(const QString& work_folder)
{
    const QDir folder(work_folder + QStringLiteral("/runs"));
    for (const QFileInfo& entry :
         folder.entryInfoList(QDir::Dirs | QDir::NoDotAndDotDot, QDir::Name | QDir::Reversed)) {
        const auto run = Run::open(toPath(entry.absoluteFilePath()));
        if (run)
            return *run;
    }
    return nullptr;
}

Status makeFolder(const QString& folder)
{
    if (!QDir().mkpath(folder))
        return io_error("The folder cannot be made", toStd(folder),
                        "Choose another working folder with --workdir");
    return {};
}

} // namespace

Result<OpenedModel> openedModel(std::shared_ptr<const Model> model, const QString& work_folder,
                                std::shared_ptr<const Run> run, JobMonitor& monitor)
{
    monitor.throw_if_cancelled();
    OpenedModel opened;
    opened.model = std::move(model);
    opened.work_folder = work_folder;
    const auto sample = sampleFolder();
    opened.sample = sample && QFileInfo(pathText(opened.model->path())).canonicalFilePath() == *sample;
    opened.calibration = earlierCalibration(work_folder, *opened.model);
    if (opened.calibration)
        opened.figures = readFigures(*opened.calibration, monitor);
    opened.run = run ? std::move(run) : earlierRun(work_folder);
    opened.autosaved = autosaved(work_folder, *opened.model);
    return opened;
}

Result<OpenedModel> open(const QString& path, const QString& work_root, JobMonitor& monitor)
{
    if (isProject(path))
        return openProject(path, monitor);
    QString place = path;
    if (place.isEmpty()) {
        const auto sample = sampleFolder();
        if (!sample)
            return sample.error();
        place = *sample;
    }
    std::shared_ptr<const Run> run;
    if (Run::is_run(toPath(place))) {
        auto found = Run::open(toPath(place));
        if (!found)
            return found.error();
        run = *found;
    }
    auto model = run ? run->model() : Model::open(toPath(place));
    if (!model)
        return model.error();
    const QString folder = workFolder(work_root, toQString((*model)->checkpoint().header_hash()));
    return openedModel(*model, folder, run, monitor);
}

Result<Calibrated> calibrate(const std::shared_ptr<const Model>& model, const QString& text_file,
                             const QString& work_folder, Backend& backend, JobMonitor& monitor)
{
    const auto text = textFile(text_file, "calibration.txt");
    if (!text)
        return text.error();
    const auto hash = fileHash(*text);
    if (!hash)
        return hash.error();
    if (const Status made = makeFolder(work_folder); !made)
        return made.error();
    const QString folder = work_folder + QStringLiteral("/calibration-") + hash->left(12);
    const auto open_and_check = [&]() -> Result<std::shared_ptr<const CalibrationStore>> {
        auto store = CalibrationStore::open(toPath(folder));
        if (!store)
            return store;
        if (const Status fits = (*store)->check(*model); !fits)
            return fits.error();
        return store;
    };
    auto store = open_and_check();
    if (!store) {
        CalibrationOptions options;
        options.replace = true; // what lies there could not be used
        options.resume = true;  // unless it is an interrupted pass of the same kind
        rememberText(work_folder, *hash, *text);
        if (const Status done =
                rankscope::calibrate(model, toPath(*text), toPath(folder), options, backend, monitor);
            !done)
            return done.error();
        store = open_and_check();
        if (!store)
            return store.error();
    }
    Calibrated result;
    result.store = *store;
    result.figures = readFigures(*result.store, monitor);
    return result;
}

Result<RunOutcome> run(const RunRequest& request, Backend& backend, JobMonitor& monitor)
{
    if (const Status made = makeFolder(QFileInfo(request.folder).path()); !made)
        return made.error();
    RunOptions options;
    options.resume = request.resume;
    options.control = request.control;
    RunEvents events;
    events.layer_changed = [&monitor](const std::string& layer, LayerState state,
                                      const std::string& message) {
        const auto shown = state == LayerState::Waiting   ? JobItem::State::Waiting
                           : state == LayerState::Running ? JobItem::State::Running
                           : state == LayerState::Done    ? JobItem::State::Done
                                                          : JobItem::State::Failed;
        monitor.setItemState(layer, shown, message);
    };
    events.layer_progress = [&monitor](const std::string& layer, double fraction, const std::string& stage) {
        monitor.setItemProgress(layer, fraction, stage);
    };
    RunOutcome outcome;
    // Finished layers are kept whatever happens, so a stopped or partly failed run is opened all the same.
    try {
        const Status done = Run::execute(request.model, request.plan, request.calibration,
                                         toPath(request.folder), options, backend, monitor, events);
        if (!done)
            outcome.error = done.error();
    } catch (const Cancelled&) {
        outcome.error = Error{ErrorKind::Cancelled, "Stopped on request; finished layers are kept", {}, {}};
    }
    auto opened = Run::open(toPath(request.folder));
    if (opened)
        outcome.run = *opened;
    else if (!outcome.error)
        return opened.error();
    else if (outcome.error->kind != ErrorKind::Cancelled)
        return *outcome.error;
    return outcome;
}

Result<EvaluationOutcome> evaluate(const EvaluationRequest& request, Backend& backend, JobMonitor& monitor)
{
    const auto text = textFile(request.text_file, "evaluation.txt");
    if (!text)
        return text.error();
    const auto hash = fileHash(*text);
    if (!hash)
        return hash.error();
    EvaluationOutcome outcome;
    outcome.key = toQString(request.model->checkpoint().header_hash()) + QLatin1Char('|') + *hash;
    const PerplexityOptions options;
    if (request.known.contains(outcome.key)) {
        outcome.evaluation.before = request.known.value(outcome.key);
    } else {
        auto before = perplexity(request.model, *checkpoint_weights(request.model), toPath(*text), options,
                                 backend, monitor);
        if (!before)
            return before.error();
        outcome.evaluation.before = *before;
    }
    auto after = perplexity(request.model, *run_weights(request.model, request.run), toPath(*text), options,
                            backend, monitor);
    if (!after)
        return after.error();
    outcome.evaluation.after = *after;
    return outcome;
}

ExportOutlook outlook(const Run& run, const Model& model, const QString& folder)
{
    ExportOutlook result;
    for (const Exporter* exporter : exporters()) {
        ExportFormat format{toQString(exporter->info().id),
                            toQString(exporter->info().title),
                            toQString(exporter->info().summary),
                            {},
                            {},
                            0};
        const Status fits = exporter->accepts(run, model);
        if (!fits)
            format.refusal = toQString(fits.error().sentence());
        else if (const auto bytes = exporter->estimate_bytes(run, model))
            format.bytes = *bytes;
        if (const Status exact = exporter->source_is_exact(run, model); fits && !exact)
            format.consent = toQString(exact.error().message);
        result.formats.append(format);
    }
    result.checkpoint_bytes = checkpoint_bytes(model);
    result.free_bytes = freeBytes(folder);
    result.folder_exists = QFileInfo::exists(folder);
    return result;
}

ExportOutcome exportRun(const Run& run, const Model& model, const QString& format, const QString& folder,
                        const ExportOptions& options, JobMonitor& monitor)
{
    ExportOutcome outcome{format, folder, 0, {}, {}};
    const auto exporter = require_exporter(toStd(format));
    if (!exporter) {
        outcome.error = exporter.error();
        return outcome;
    }
    if (const Status made = makeFolder(QFileInfo(folder).path()); !made) {
        outcome.error = made.error();
        return outcome;
    }
    if (const Status written = (*exporter)->write(run, model, toPath(folder), options, monitor); !written) {
        outcome.error = written.error();
        return outcome;
    }
    outcome.bytes = folderBytes(folder);
    if (const Status checked = (*exporter)->check(run, model, toPath(folder), monitor); !checked)
        outcome.check_error = checked.error();
    return outcome;
}

} // namespace rankscope::steps
