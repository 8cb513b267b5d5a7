// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/models/run_model.h"
#include "app/workbench/session.h"

#include <QDockWidget>

class QLabel;
class QPushButton;
class QSortFilterProxyModel;
class QStackedWidget;

namespace rankscope {

class DataTable;
class ElidingLabel;
class ErrorPlot;

/// Perplexity before and after, errors per layer, the error per iteration of the selected one.
class ResultsDock : public QDockWidget {
    Q_OBJECT

public:
    explicit ResultsDock(Session& session, QWidget* parent = nullptr);

    DataTable& table() { return *table_; }
    ErrorPlot& plot() { return *plot_; }
    QString perplexityText() const; ///< as shown, for tests

Q_SIGNALS:
    void runRequested();
    void evaluateRequested();
    void exportRequested();

private:
    QWidget* buildHeader();
    void refresh();
    void showEvaluation();
    void showTrace();
    void showSelection(const Selection& selection);

    Session& session_;
    RunModel* model_;
    QSortFilterProxyModel* sorted_;
    DataTable* table_;
    ErrorPlot* plot_;
    ElidingLabel* summary_;
    QLabel* before_;
    QLabel* after_;
    ElidingLabel* how_;
    QPushButton* evaluate_;
    QPushButton* export_;
    QStackedWidget* pages_;
    bool following_ = false;
};

} // namespace rankscope
