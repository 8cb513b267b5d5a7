// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/device.h"
#include "app/workbench/jobs/job_runner.h"
#include "app/workbench/session.h"

#include <QElapsedTimer>
#include <QObject>
#include <QTimer>

#include <memory>

namespace rankscope {

/// Keeps the plan: in the project's file when asked to, and by itself in the working folder, at most 30 s
/// after a change and when the checkpoint is left. So a crash or a power cut costs half a minute of edits.
class ProjectKeeper : public QObject {
    Q_OBJECT

public:
    ProjectKeeper(Session& session, JobRunner& runner, std::shared_ptr<Device> device, QObject* parent);

    /// NAME.rankscope.json; replaces it where it is the open project, or `replace` says so.
    void save(const QString& file, bool replace);
    bool modified() const; ///< the plan is not what the project's file holds
    /// What is not yet on disk is written now. For the end of the program.
    void flush();
    void setAutosave(bool on);

    /// A run begins, a run has ended: the project's list grows by one that is complete.
    void runStarted();
    void runEnded();

Q_SIGNALS:
    void modifiedChanged();
    void saved(const QString& file);
    void failed(const QString& what, const rankscope::Error& error);

private:
    void planEdited();
    void autosave();
    void write(const QString& file, bool replace, std::optional<ProjectRun> finished);

    Session& session_;
    JobRunner& runner_;
    std::shared_ptr<Device> device_;
    QTimer delay_;
    QElapsedTimer running_;
    // What an unwritten change belongs to, also after another checkpoint was opened.
    QString folder_;
    Plan plan_;
    bool pending_ = false;
    bool autosaves_ = true;
};

} // namespace rankscope
