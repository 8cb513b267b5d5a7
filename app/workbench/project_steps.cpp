// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/project_steps.h"

#include "app/workbench/folders.h"
#include "app/workbench/jobs/job_monitor.h"
#include "app/workbench/text.h"
#include "app/workbench/workflow_steps.h"

#include <QDir>
#include <QFileInfo>
#include <QSettings>

#include <algorithm>

namespace rankscope::steps {
namespace {

QString textsFile(const QString& work_folder) { return work_folder + QStringLiteral("/texts.ini"); }

/// The file that a calibration was made of: the one remembered, or the built-in text.
Result<QString> calibrationText(const QString& work_folder, const CalibrationStore& calibration)
{
    const QString hash = toQString(calibration.source().text_hash);
    QStringList candidates{QSettings(textsFile(work_folder), QSettings::IniFormat).value(hash).toString()};
    if (const auto sample = sampleFolder())
        candidates << *sample + QStringLiteral("/calibration.txt");
    for (const QString& candidate : std::as_const(candidates)) {
        if (candidate.isEmpty())
            continue;
        if (const auto found = fileHash(candidate); found && *found == hash)
            return candidate;
    }
    return bad_input("the text that the calibration was made of is not there any more",
                     calibration.source().text_file,
                     "Put it back, or calibrate again with another text and save then");
}

} // namespace

bool isProject(const QString& path) { return path.endsWith(QLatin1String(".rankscope.json")); }

Result<OpenedModel> openProject(const QString& file, JobMonitor& monitor)
{
    auto project = Project::read(toPath(file));
    if (!project)
        return project.error();
    const auto folder = Project::data_folder(toPath(file));
    if (!folder)
        return folder.error();
    auto model = project->model();
    if (!model)
        return model.error();
    auto opened = openedModel(*model, pathText(*folder), nullptr, monitor);
    if (!opened)
        return opened.error();
    opened->plan = project->plan;
    opened->project_file = file;
    opened->project = std::make_shared<const Project>(std::move(*project));
    return opened;
}

void rememberText(const QString& work_folder, const QString& hash, const QString& file)
{
    QSettings(textsFile(work_folder), QSettings::IniFormat)
        .setValue(hash, QFileInfo(file).absoluteFilePath());
}

Result<std::shared_ptr<const Project>> saveProject(const ProjectRequest& request)
{
    Plan plan = request.plan;
    plan.checkpoint_hash = request.model->checkpoint().header_hash();
    plan.calibration_id = request.calibration ? request.calibration->id() : std::string();
    QString text;
    if (request.calibration) {
        auto found = calibrationText(request.work_folder, *request.calibration);
        if (!found)
            return found.error();
        text = *found;
    }
    const Project* before = request.before.get();
    const std::uint64_t seed =
        before && before->calibration ? before->calibration->seed : CalibrationOptions().seed;
    auto project = Project::make(*request.model, plan, request.calibration.get(), toPath(text), seed);
    if (!project)
        return project.error();
    if (before) {
        project->runs = before->runs;
        project->budget = before->budget;
        project->propagate = before->propagate && project->calibration;
        project->schema = before->schema; // a later one is refused by write()
    }
    if (request.finished) {
        const auto same = [&](const ProjectRun& run) { return run.name == request.finished->name; };
        std::erase_if(project->runs, same);
        project->runs.push_back(*request.finished);
    }
    if (auto written = project->write(toPath(request.file), request.replace); !written)
        return written.error();
    return std::make_shared<const Project>(std::move(*project));
}

QString autosaveFile(const QString& work_folder)
{
    return work_folder.isEmpty() ? QString() : work_folder + QStringLiteral("/plan.autosave.json");
}

Status autosave(const QString& work_folder, const Plan& plan)
{
    if (work_folder.isEmpty() || !QDir().mkpath(work_folder))
        return io_error("the folder cannot be made", toStd(work_folder),
                        "Choose another working folder with --workdir");
    return plan.write(toPath(autosaveFile(work_folder)), true);
}

std::optional<Plan> autosaved(const QString& work_folder, const Model& model)
{
    auto plan = Plan::read(toPath(autosaveFile(work_folder)));
    if (!plan || plan->checkpoint_hash != model.checkpoint().header_hash())
        return std::nullopt;
    return std::move(*plan);
}

} // namespace rankscope::steps
