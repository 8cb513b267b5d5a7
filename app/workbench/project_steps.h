// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_monitor.h"
#include "app/workbench/session.h"
#include "core/run/project.h"

namespace rankscope::steps {

/// What the project's jobs do on their worker threads: plain functions of immutable input.

/// Whether a path is one of a project: NAME.rankscope.json.
bool isProject(const QString& path);

/// The checkpoint of a project with its plan; calibrations and runs lie in NAME.rankscope beside it.
/// Errors: Io, BadInput (the file, or the checkpoint moved or is another one).
Result<OpenedModel> openProject(const QString& file, JobMonitor& monitor);

/// Remembers of which file a calibration below `work_folder` was made: a project names it.
void rememberText(const QString& work_folder, const QString& hash, const QString& file);

struct ProjectRequest {
    QString file;
    std::shared_ptr<const Model> model;
    Plan plan;
    std::shared_ptr<const CalibrationStore> calibration; ///< null: none
    QString work_folder;
    std::shared_ptr<const Project> before; ///< as it was opened or saved last; null: a new one
    std::optional<ProjectRun> finished;    ///< to be added to its list
    bool replace = false;
};
/// Errors: Io, NoSpace; BadInput (the text of the calibration is gone, a newer schema).
Result<std::shared_ptr<const Project>> saveProject(const ProjectRequest& request);

/// The plan as it was left, in a file of its own in the working folder; empty name for none.
QString autosaveFile(const QString& work_folder);
Status autosave(const QString& work_folder, const Plan& plan);
/// Nothing where there is no readable one, or it is not of this checkpoint.
std::optional<Plan> autosaved(const QString& work_folder, const Model& model);

} // namespace rankscope::steps
