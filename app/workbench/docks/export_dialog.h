// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/session.h"
#include "app/workbench/workflow.h"

#include <QDialog>
#include <QTimer>

class QCheckBox;
class QLabel;
class QLineEdit;
class QListWidget;
class QProgressBar;
class QPushButton;

namespace rankscope {

/// Writes the current run as a model other programs load, and shows whether reading it back gives the same
/// weights. Not modal: the window stays usable while it writes.
class ExportDialog : public QDialog {
    Q_OBJECT

public:
    ExportDialog(Session& session, Workflow& workflow, QWidget* parent = nullptr);

    QLineEdit& folder() { return *folder_; }
    QPushButton& exportButton() { return *export_; }
    QString verdict() const; ///< text below the progress bar
    bool checkPassed() const { return check_passed_; }

private:
    void nameParts();
    void connectParts();
    void chooseFolder();
    void showOutlook(const ExportOutlook& outlook);
    void showFormat();
    void startExport();
    void showOutcome(const ExportOutcome& outcome);
    void showVerdict(const QString& icon, const QString& text, bool error);
    void paintVerdict();
    void suggestFolder();
    const ExportFormat* format() const;

    Session& session_;
    Workflow& workflow_;
    QListWidget* formats_;
    QLabel* summary_;
    QLabel* size_;
    QLineEdit* folder_;
    QCheckBox* replace_;
    QCheckBox* requantize_; ///< shown where the checkpoint's own weights were rounded before
    QProgressBar* progress_;
    QLabel* verdict_icon_;
    QLabel* verdict_;
    QPushButton* export_;
    QTimer settle_;
    ExportOutlook outlook_;
    bool folder_edited_ = false;
    bool writing_ = false;
    bool check_passed_ = false;
    bool hint_ = false; ///< the verdict only says that the folder exists
    bool verdict_is_error_ = false;
    QString verdict_icon_name_;
};

} // namespace rankscope
