// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_runner.h"
#include "app/workbench/session.h"

namespace rankscope {

/// Opens the other side of a comparison, matches its tensors with those of the open checkpoint and measures
/// how far the weights of each layer lie apart; all of it in jobs, the result goes into the session.
class Comparer : public QObject {
    Q_OBJECT

public:
    Comparer(Session& session, JobRunner& runner, QObject* parent = nullptr);

    /// A checkpoint (file or folder) or a run.
    void start(const QString& path);
    /// The open checkpoint with what the session's run made of it.
    void startWithRun();
    void stop();

Q_SIGNALS:
    void message(const QString& text);
    void failed(const rankscope::Error& error);

private:
    void accept(const std::shared_ptr<const Comparison>& comparison);
    void measure();

    Session& session_;
    JobRunner& runner_;
    JobId opening_ = 0;
    JobId measuring_ = 0;
};

} // namespace rankscope
