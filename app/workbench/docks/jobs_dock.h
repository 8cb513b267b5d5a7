// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/models/job_model.h"

#include <QDockWidget>

class QKeyEvent;
class QLabel;
class QPlainTextEdit;
class QPushButton;

namespace rankscope {

class DataTree;

/// Running and finished jobs, their layers, their log; pause, go on, retry, reorder (Alt+↑, Alt+↓), cancel.
class JobsDock : public QDockWidget {
    Q_OBJECT

public:
    explicit JobsDock(JobRunner& runner, QWidget* parent = nullptr);

    DataTree& tree() { return *tree_; }
    /// "Compress 35 layers · 40 % · 20 s left", or empty when nothing runs.
    QString summary() const;

Q_SIGNALS:
    void summaryChanged(const QString& summary);
    /// Esc was pressed on a running job: the window asks before it is cancelled.
    void cancelQuestion(rankscope::JobId job, const QString& title);

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    JobId current() const;
    QWidget* buildSide();
    void showCurrent();
    /// Pauses the current job, or goes on with one that has ended.
    void pauseOrGoOn();
    /// The current job, or the waiting layer that is current, before the others.
    void runNext();
    bool handleKey(const QKeyEvent& key);
    void showLog();
    void refreshSummary();

    JobRunner& runner_;
    JobModel* model_;
    DataTree* tree_;
    QPlainTextEdit* log_;
    QPushButton* cancel_;
    QPushButton* clear_;
    QPushButton* next_;
    QPushButton* pause_; ///< also "Resume" and "Retry"

    JobId moved_ = 0; ///< which one keeps the cursor when the queue changes
    QString log_text_;
};

} // namespace rankscope
