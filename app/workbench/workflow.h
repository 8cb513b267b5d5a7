// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/job_runner.h"
#include "app/workbench/session.h"
#include "core/base/error.h"
#include "core/export/exporter.h"

#include <QHash>
#include <QObject>
#include <QVector>

#include <memory>
#include <optional>

namespace rankscope {

struct ExportFormat {
    QString id;
    QString title;
    QString summary;
    QString refusal;   ///< why the current run cannot be held; empty: it can
    QString consent;   ///< why weights would be rounded a second time; empty: they would not
    quint64 bytes = 0; ///< estimate
};

struct ExportOutlook {
    QVector<ExportFormat> formats;
    quint64 checkpoint_bytes = 0;
    quint64 free_bytes = 0; ///< on the drive of the chosen folder
    bool folder_exists = false;
};

struct ExportOutcome {
    QString format;
    QString folder;
    quint64 bytes = 0;
    std::optional<Error> error;       ///< nothing was written
    std::optional<Error> check_error; ///< written, but reading it back differs
};

/// The main job, step by step: open → calibrate → plan → run → evaluate → export. Every step is a job; its
/// result arrives in the session, its failure as a sentence.
class Workflow : public QObject {
    Q_OBJECT

public:
    /// `work_root` holds calibrations and runs, one folder a checkpoint.
    Workflow(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QString work_root,
             QObject* parent = nullptr);

    const QString& workRoot() const { return work_root_; }
    /// Opens the compute device; after the first paint.
    void prepareDevice();

    void openPath(const QString& path);
    void openSample();
    /// Whether a plan comes back as it was left; else every checkpoint begins with the preset.
    void setRestorePlan(bool on) { restore_plan_ = on; }
    bool opening() const { return opening_; }

    /// An empty name: the built-in text.
    void calibrate(const QString& text_file);
    bool calibrating() const { return calibrating_; }
    void applyPreset(const QString& id, bool undoable);

    /// Compresses the included rows (or of them only `layers`), then evaluates before and after.
    void run(const QStringList& layers = {});
    /// Goes on with a run that was paused.
    void resume();
    bool running() const { return running_; }
    /// The run under way is deleted as soon as it has stopped.
    void discardRunWhenStopped() { discard_ = true; }
    /// An empty name: the built-in text.
    void setEvaluationText(const QString& file) { evaluation_text_ = file; }
    void evaluate();

    void requestExportOutlook(const QString& folder);
    void exportRun(const QString& format, const QString& folder, ExportOptions options);

Q_SIGNALS:
    void message(const QString& text);                               ///< for the status bar
    void failed(const QString& what, const rankscope::Error& error); ///< "The checkpoint was not opened"
    void deviceReady(const QString& name, const QString& notice);
    void opened();
    void openingChanged(bool opening);
    void calibrationNeeded(const QString& why);
    void weightsOnly(const QString& why); ///< no text flows through this model: nothing to calibrate with
    void pausedRunFound(int done, int all);
    void planRestored(bool of_project); ///< edits of an earlier session: one step to undo
    void runStarted();
    void runFinished();
    void evaluated();
    void exportOutlookReady(const rankscope::ExportOutlook& outlook);
    void exported(const rankscope::ExportOutcome& outcome);

private:
    void open(const QString& path, bool sample);
    void tellLostDevice();
    void askForCalibration(const QString& why);
    /// What failed in it or was not begun.
    void retryRun(const QString& folder);
    void startRun(Plan plan, const QString& folder, bool resume);
    void removeFolder(const QString& folder);
    void finishOpening(const OpenedModel& opened, const QString& path);
    void beginPlan(const OpenedModel& opened, const QString& path);

    Session& session_;
    JobRunner& runner_;
    std::shared_ptr<Device> device_;
    QString work_root_;
    QString evaluation_text_;
    QHash<QString, PerplexityResult>
        before_; ///< perplexities of unchanged checkpoints, by checkpoint and text
    bool told_fallback_ = false;
    bool opening_ = false;
    bool calibrating_ = false;
    JobId calibration_job_ = 0;
    bool running_ = false;
    bool discard_ = false;
    bool restore_plan_ = true;
    std::optional<QStringList> run_after_calibration_;
};

} // namespace rankscope
