// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/session.h"

#include <QAbstractTableModel>
#include <QStringList>
#include <QVector>

namespace rankscope {

/// The plan as a table. An edit of a cell whose row is among the selected ones applies to all selected rows,
/// as one undo step; a value that some row does not allow is refused for all, with the reason.
class PlanModel : public QAbstractTableModel {
    Q_OBJECT

public:
    enum Column {
        Include,
        Locked,
        Layer,
        MethodColumn,
        Bits,
        Group,
        Rank,
        Outliers,
        PredictedError,
        Size,
        BitsPerWeight,
        k_columns
    };
    /// ChoicesRole: texts that the cell allows (method); RangeRole: QPoint(min, max) of an integer cell.
    enum Roles { ChoicesRole = Qt::UserRole + 1, ChoiceIdsRole, RangeRole };

    explicit PlanModel(Session& session, QObject* parent = nullptr);

    /// Rows that an edit of one of them shall reach.
    void setSelectedRows(const QVector<int>& rows) { selected_rows_ = rows; }
    /// Sets `column` on all `rows` as one undo step. Says what it did through edited() or refused().
    bool setOnRows(const QVector<int>& rows, int column, const QVariant& value);
    /// The value of the topmost row in all the others.
    bool fillDown(QVector<int> rows, int column);
    QString layerAt(int row) const;
    int rowOf(const QString& layer) const;

    /// "2.41 bits/weight · 2.17 GB of 13.0 GB · 224 layers", and how many errors are predicted.
    QString footer() const;

    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    bool setData(const QModelIndex& index, const QVariant& value, int role = Qt::EditRole) override;
    Qt::ItemFlags flags(const QModelIndex& index) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

Q_SIGNALS:
    void edited(const QString& what); ///< "rank = 64 on 32 rows"
    void refused(const QString& reason);
    void footerChanged();

private:
    void planChanged();
    const LayerPlan& row(int number) const;
    const LinearLayer* linear(const LayerPlan& row) const;
    QString text(const LayerPlan& row, int column) const;
    QVariant editValue(const LayerPlan& row, int column) const;
    QString toolTip(const LayerPlan& row, int column) const;
    QPoint range(const LayerPlan& row, int column) const;

    Session& session_;
    QStringList layers_; ///< of the rows as last shown: a change of them resets the model
    QVector<int> selected_rows_;
};

} // namespace rankscope
