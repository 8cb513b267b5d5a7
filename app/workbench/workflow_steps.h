// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/session.h"
#include "app/workbench/workflow.h"

#include <QHash>

namespace rankscope::steps {

/// What the workflow's jobs do on their worker threads: plain functions of immutable input.

/// Opens a checkpoint, or the checkpoint of a run folder with that run; finds what an earlier session left
/// for it. An empty path opens the sample.
Result<OpenedModel> open(const QString& path, const QString& work_root, JobMonitor& monitor);

/// What an earlier session left for a checkpoint in `work_folder`. `run` null: the newest one there.
Result<OpenedModel> openedModel(std::shared_ptr<const Model> model, const QString& work_folder,
                                std::shared_ptr<const Run> run, JobMonitor& monitor);

struct Calibrated {
    std::shared_ptr<const CalibrationStore> store;
    InputFiguresByGroup figures;
};
/// Calibrates, or takes the calibration that is already there for this text. An empty name: the built-in
/// text.
Result<Calibrated> calibrate(const std::shared_ptr<const Model>& model, const QString& text_file,
                             const QString& work_folder, Backend& backend, JobMonitor& monitor);

struct RunRequest {
    std::shared_ptr<const Model> model;
    Plan plan;
    std::shared_ptr<const CalibrationStore> calibration;
    QString folder;
    bool resume = false;
    std::shared_ptr<RunControl> control = {};
};
/// What is finished, and what went wrong on the way.
struct RunOutcome {
    std::shared_ptr<const Run> run;
    std::optional<Error> error;
};
Result<RunOutcome> run(const RunRequest& request, Backend& backend, JobMonitor& monitor);

struct EvaluationRequest {
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Run> run;
    QString text_file;                      ///< empty: the built-in text
    QHash<QString, PerplexityResult> known; ///< results for unchanged checkpoints
};
struct EvaluationOutcome {
    Evaluation evaluation;
    QString key; ///< for `known`
};
Result<EvaluationOutcome> evaluate(const EvaluationRequest& request, Backend& backend, JobMonitor& monitor);

ExportOutlook outlook(const Run& run, const Model& model, const QString& folder);
ExportOutcome exportRun(const Run& run, const Model& model, const QString& format, const QString& folder,
                        const ExportOptions& options, JobMonitor& monitor);

} // namespace rankscope::steps
