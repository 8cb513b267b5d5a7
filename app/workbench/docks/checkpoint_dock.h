// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/models/layer_table_model.h"
#include "app/workbench/session.h"

#include <QDockWidget>

class QLabel;
class QLineEdit;
class QStackedWidget;

namespace rankscope {

class DataTree;

/// Tensors of the checkpoint with a filter; what is chosen here becomes the selection.
class CheckpointDock : public QDockWidget {
    Q_OBJECT

public:
    explicit CheckpointDock(Session& session, QWidget* parent = nullptr);

    DataTree& tree() { return *tree_; }
    QLineEdit& filter() { return *filter_; }
    void focusFilter();

private:
    void showSelection(const Selection& selection);
    void applyFilter(const QString& text);

    Session& session_;
    LayerTableModel* model_;
    LayerFilterModel* proxy_;
    QLineEdit* filter_;
    QLabel* count_;
    QStackedWidget* pages_;
    DataTree* tree_;
    bool following_ = false; ///< the tree is being moved to the selection, not by the user
};

} // namespace rankscope
