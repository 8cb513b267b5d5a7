// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/plot_table.h"

#include "app/workbench/plots/number_format.h"

#include <QAction>
#include <QClipboard>
#include <QGuiApplication>
#include <QHeaderView>
#include <QKeyEvent>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QVBoxLayout>

#include <algorithm>

namespace rankscope {

PlotTableModel::PlotTableModel(QVector<QStringList> rows, QObject* parent) : QAbstractTableModel(parent)
{
    if (rows.isEmpty())
        return;
    header_ = rows.takeFirst();
    rows_ = std::move(rows);
}

int PlotTableModel::rowCount(const QModelIndex& parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}

int PlotTableModel::columnCount(const QModelIndex& parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(header_.size());
}

QVariant PlotTableModel::data(const QModelIndex& index, int role) const
{
    if (!checkIndex(index, CheckIndexOption::IndexIsValid))
        return {};
    const QString text = rows_[index.row()].value(index.column());
    bool is_number = false;
    const double number = text.toDouble(&is_number);
    switch (role) {
    case Qt::DisplayRole:
        return is_number && (text.contains(QLatin1Char('.')) || text.contains(QLatin1Char('e')))
                   ? formatNumber(number)
                   : text;
    case Qt::ToolTipRole:
        return text;
    case Qt::EditRole:
        return is_number ? QVariant(number) : QVariant(text);
    case Qt::UserRole:
        return text;
    case Qt::TextAlignmentRole:
        return is_number ? QVariant(Qt::AlignRight | Qt::AlignVCenter)
                         : QVariant(Qt::AlignLeft | Qt::AlignVCenter);
    default:
        return {};
    }
}

QVariant PlotTableModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (role != Qt::DisplayRole)
        return {};
    return orientation == Qt::Horizontal ? QVariant(header_.value(section)) : QVariant(section + 1);
}

PlotTable::PlotTable(const QString& title, QVector<QStringList> rows, QWidget* parent) : QDialog(parent)
{
    setWindowTitle(title);
    setAttribute(Qt::WA_DeleteOnClose);
    auto* sorted = new QSortFilterProxyModel(this);
    sorted->setSourceModel(new PlotTableModel(std::move(rows), this));
    sorted->setSortRole(Qt::EditRole);
    view_ = new QTableView(this);
    view_->setModel(sorted);
    view_->setSortingEnabled(true);
    view_->sortByColumn(-1, Qt::AscendingOrder);
    view_->setAlternatingRowColors(true);
    view_->setAccessibleName(title);
    view_->verticalHeader()->setVisible(false);
    view_->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
    view_->horizontalHeader()->setResizeContentsPrecision(200);
    view_->resizeColumnsToContents();
    auto* copy = new QAction(tr("Copy"), view_);
    view_->installEventFilter(this);
    connect(copy, &QAction::triggered, this, &PlotTable::copySelection);
    view_->addAction(copy);
    view_->setContextMenuPolicy(Qt::ActionsContextMenu);
    auto* layout = new QVBoxLayout(this);
    layout->setContentsMargins(8, 8, 8, 8);
    layout->addWidget(view_);
    resize(640, 480);
}

/// The view itself would copy only the current cell, as it is shown and not as it is.
bool PlotTable::eventFilter(QObject* watched, QEvent* event)
{
    if (event->type() == QEvent::KeyPress && static_cast<QKeyEvent*>(event)->matches(QKeySequence::Copy)) {
        copySelection();
        return true;
    }
    return QDialog::eventFilter(watched, event);
}

void PlotTable::copySelection() const
{
    QModelIndexList cells = view_->selectionModel()->selectedIndexes();
    std::sort(cells.begin(), cells.end());
    QString text;
    int row = -1;
    for (const QModelIndex& cell : std::as_const(cells)) {
        if (row >= 0)
            text += cell.row() == row ? QLatin1Char('\t') : QLatin1Char('\n');
        row = cell.row();
        text += cell.data(Qt::UserRole).toString();
    }
    QGuiApplication::clipboard()->setText(text);
}

} // namespace rankscope
