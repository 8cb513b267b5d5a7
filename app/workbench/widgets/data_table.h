// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QTableView>
#include <QTreeView>
#include <QVector>

namespace rankscope {

/// The selected cells as tab-separated text with a header line, columns as they are shown; empty without
/// selection.
QString selectionAsText(const QAbstractItemView& view, const QHeaderView& header);

/// A table of rows: whole rows are selected, Ctrl+C copies them, a click into an editable cell of one of
/// several selected rows keeps the selection, so that an edit there reaches all of them.
class DataTable : public QTableView {
    Q_OBJECT

public:
    explicit DataTable(QWidget* parent = nullptr);
    /// Source rows that are selected, rising (the model must not be a proxy).
    QVector<int> selectedRows() const;

protected:
    QItemSelectionModel::SelectionFlags selectionCommand(const QModelIndex& index,
                                                         const QEvent* event) const override;
    void keyPressEvent(QKeyEvent* event) override;
};

/// The same for trees.
class DataTree : public QTreeView {
    Q_OBJECT

public:
    explicit DataTree(QWidget* parent = nullptr);

protected:
    void keyPressEvent(QKeyEvent* event) override;
};

} // namespace rankscope
