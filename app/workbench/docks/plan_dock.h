// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/models/plan_model.h"
#include "app/workbench/session.h"

#include <QDockWidget>

class QComboBox;
class QLabel;
class QPushButton;
class QStackedWidget;

namespace rankscope {

class BudgetBar;
class DataTable;
class ElidingLabel;

/// The plan: presets, one row per layer, size of the result.
class PlanDock : public QDockWidget {
    Q_OBJECT

public:
    explicit PlanDock(Session& session, QWidget* parent = nullptr);

    DataTable& table() { return *table_; }
    PlanModel& model() { return *model_; }
    BudgetBar& budget() { return *budget_; }
    QStringList selectedLayers() const;
    void fillDown();
    void setMeasuring(bool measuring);

Q_SIGNALS:
    void presetChosen(const QString& id);
    void measureRequested();
    void runRequested();
    void openRequested();
    void edited(const QString& what);
    void refused(const QString& reason);

private:
    void buildTable();
    QWidget* buildBar();
    void showSelection(const Selection& selection);
    void showFooter();
    void showNotice(const QString& text, bool refused);

    Session& session_;
    PlanModel* model_;
    DataTable* table_;
    BudgetBar* budget_;
    QComboBox* presets_;
    QPushButton* measure_;
    QPushButton* run_;
    QLabel* footer_;
    ElidingLabel* notice_;
    QStackedWidget* pages_;
    bool following_ = false;
};

} // namespace rankscope
