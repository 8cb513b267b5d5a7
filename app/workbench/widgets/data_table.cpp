// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/widgets/data_table.h"

#include <QApplication>
#include <QClipboard>
#include <QHeaderView>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QStyledItemDelegate>

#include <algorithm>

namespace rankscope {

namespace {

/// Rows high enough to be hit.
class RowDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    QSize sizeHint(const QStyleOptionViewItem& option, const QModelIndex& index) const override
    {
        QSize size = QStyledItemDelegate::sizeHint(option, index);
        size.setHeight(std::max({24, size.height(), option.fontMetrics.height() + 8}));
        return size;
    }
};

} // namespace

QString selectionAsText(const QAbstractItemView& view, const QHeaderView& header)
{
    QVector<int> columns;
    for (int visual = 0; visual < header.count(); ++visual) {
        const int column = header.logicalIndex(visual);
        if (!header.isSectionHidden(column))
            columns.append(column);
    }
    const QModelIndexList rows =
        view.selectionModel() ? view.selectionModel()->selectedRows() : QModelIndexList();
    if (rows.isEmpty())
        return {};
    QStringList lines;
    QStringList cells;
    for (const int column : columns)
        cells << view.model()->headerData(column, Qt::Horizontal).toString();
    lines << cells.join(QLatin1Char('\t'));
    for (const QModelIndex& row : rows) {
        cells.clear();
        for (const int column : columns) {
            const QModelIndex cell = row.siblingAtColumn(column);
            const QVariant check = cell.data(Qt::CheckStateRole);
            cells << (check.isValid() ? (check.toInt() != 0 ? QStringLiteral("yes") : QStringLiteral("no"))
                                      : cell.data(Qt::DisplayRole).toString());
        }
        lines << cells.join(QLatin1Char('\t'));
    }
    return lines.join(QLatin1Char('\n')) + QLatin1Char('\n');
}

DataTable::DataTable(QWidget* parent) : QTableView(parent)
{
    setSelectionBehavior(QAbstractItemView::SelectRows);
    setSelectionMode(QAbstractItemView::ExtendedSelection);
    setAlternatingRowColors(true);
    setShowGrid(false);
    setWordWrap(false);
    setTabKeyNavigation(false);
    setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
    verticalHeader()->hide();
    verticalHeader()->setDefaultSectionSize(std::max(24, fontMetrics().height() + 8));
    horizontalHeader()->setHighlightSections(false);
}

QVector<int> DataTable::selectedRows() const
{
    QVector<int> rows;
    if (selectionModel()) {
        for (const QModelIndex& index : selectionModel()->selectedRows())
            rows.append(index.row());
    }
    std::sort(rows.begin(), rows.end());
    return rows;
}

QItemSelectionModel::SelectionFlags DataTable::selectionCommand(const QModelIndex& index,
                                                                const QEvent* event) const
{
    const bool mouse =
        event
        && (event->type() == QEvent::MouseButtonPress || event->type() == QEvent::MouseButtonRelease
            || event->type() == QEvent::MouseMove);
    const Qt::ItemFlags cell = index.isValid() ? index.flags() : Qt::NoItemFlags;
    const bool edits = (cell & (Qt::ItemIsEditable | Qt::ItemIsUserCheckable)) != 0;
    if (mouse && edits && selectionModel()->isSelected(index) && selectionModel()->selectedRows().size() > 1
        && static_cast<const QMouseEvent*>(event)->modifiers() == Qt::NoModifier)
        return QItemSelectionModel::NoUpdate;
    return QTableView::selectionCommand(index, event);
}

void DataTable::keyPressEvent(QKeyEvent* event)
{
    if (event->matches(QKeySequence::Copy)) {
        QApplication::clipboard()->setText(selectionAsText(*this, *horizontalHeader()));
        return;
    }
    QTableView::keyPressEvent(event);
}

DataTree::DataTree(QWidget* parent) : QTreeView(parent)
{
    setSelectionBehavior(QAbstractItemView::SelectRows);
    setSelectionMode(QAbstractItemView::ExtendedSelection);
    setUniformRowHeights(true);
    setItemDelegate(new RowDelegate(this));
    setAlternatingRowColors(true);
    setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
}

void DataTree::keyPressEvent(QKeyEvent* event)
{
    if (event->matches(QKeySequence::Copy)) {
        QApplication::clipboard()->setText(selectionAsText(*this, *header()));
        return;
    }
    QTreeView::keyPressEvent(event);
}

} // namespace rankscope
