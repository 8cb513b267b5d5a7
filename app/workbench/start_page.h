// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_runner.h"

#include <QWidget>

class QLabel;
class QListWidget;
class QPushButton;

namespace rankscope {

/// Three cards: open, recent, sample.
class StartPage : public QWidget {
    Q_OBJECT

public:
    explicit StartPage(JobRunner& runner, QWidget* parent = nullptr);

    /// Reads the list of recent files again; which of them are missing is found out by a job.
    void refreshRecent();
    void focusRecent();
    void setBusy(bool busy);
    void setDropHint(bool dragging); ///< a file hovers over the window

Q_SIGNALS:
    void openFileRequested();
    void openFolderRequested();
    void sampleRequested();
    void recentChosen(const QString& path);

private:
    QWidget* buildOpenCard();
    QWidget* buildRecentCard();
    QWidget* buildSampleCard();
    void markMissing(const QStringList& missing);
    void restyle();

    JobRunner& runner_;
    QWidget* open_card_ = nullptr;
    QLabel* open_hint_ = nullptr;
    QListWidget* recent_ = nullptr;
    QPushButton* remove_ = nullptr;
    QPushButton* sample_ = nullptr;
    bool dragging_ = false;
};

} // namespace rankscope
