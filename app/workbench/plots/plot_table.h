// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QAbstractTableModel>
#include <QDialog>
#include <QStringList>
#include <QVector>

class QTableView;

namespace rankscope {

/// Read-only rows of text. Numbers are shown with four significant digits, the full value is in the tooltip,
/// in the edit role (sorting, copying) and in files.
class PlotTableModel : public QAbstractTableModel {
    Q_OBJECT
public:
    /// The first row is the header; shorter rows are padded.
    explicit PlotTableModel(QVector<QStringList> rows, QObject* parent = nullptr);

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    QStringList header_;
    QVector<QStringList> rows_;
};

/// "View as table" of a plot: not modal, sortable, copies the selected cells as TSV.
class PlotTable : public QDialog {
    Q_OBJECT
public:
    PlotTable(const QString& title, QVector<QStringList> rows, QWidget* parent);

    void copySelection() const;

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    QTableView* view_ = nullptr;
};

} // namespace rankscope
