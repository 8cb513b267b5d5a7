// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/models/tensor_filter.h"
#include "app/workbench/session.h"

#include <QAbstractItemModel>
#include <QHash>
#include <QSortFilterProxyModel>
#include <QVector>

namespace rankscope {

/// Every tensor of the open checkpoint, grouped by decoder block, with what calibration, plan and run know of
/// it.
class LayerTableModel : public QAbstractItemModel {
    Q_OBJECT

public:
    enum Column { Name, Role, ShapeColumn, Type, Size, Crest, Kurtosis, Planned, Done, OtherSize, SizeChange, Difference, k_columns };
    /// TensorRole: the full tensor name (empty for a group). FactsRow: row in facts(). SortRole: value to
    /// sort by.
    enum Roles { TensorRole = Qt::UserRole + 1, FactsRole, SortRole };

    explicit LayerTableModel(Session& session, QObject* parent = nullptr);

    QModelIndex indexOf(const QString& tensor) const;
    const TensorFacts* facts(const QModelIndex& index) const; ///< null for groups

    QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
    QModelIndex parent(const QModelIndex& child) const override;
    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

private:
    struct Tensor {
        TensorFacts facts;
        QString label; ///< inside its group
        QString layer; ///< the linear's name, or empty
        QString shape;
        qint64 elements = 0;
        quint64 bytes = 0;
        int group = -1;   ///< index into groups_, −1: at the top
        int position = 0; ///< row under its parent
        bool other = false;      ///< only B has it
        quint64 other_bytes = 0; ///< of its partner in B; 0: none
    };
    struct Group {
        QString name;
        QVector<int> tensors;
        quint64 bytes = 0;
        int position = 0;
    };
    struct Top {
        bool group = false;
        int index = 0;
    };

    void rebuild();
    void readResults();
    void addTensor(const TensorInfo& info);
    void addUnmatched();
    Tensor tensorOf(const Model& model, const TensorInfo& info) const;
    void refreshFigures();
    void refreshColumns(int first, int last);
    QVariant tensorText(const Tensor& tensor, int column) const;
    QVariant groupText(const Group& group, int column) const;
    QVariant sortValue(const QModelIndex& index) const;
    QString toolTip(const Tensor& tensor, int column) const;
    QString planned(const Tensor& tensor) const;

    Session& session_;
    QVector<Tensor> tensors_;
    QVector<Group> groups_;
    QVector<Top> top_;
    QHash<QString, int> by_name_;
    QHash<QString, double> done_; ///< layer → relative activation error of the current run
};

/// Filters by TensorFilter and sorts by value; a group stays while one of its tensors matches.
class LayerFilterModel : public QSortFilterProxyModel {
    Q_OBJECT

public:
    explicit LayerFilterModel(LayerTableModel& source, QObject* parent = nullptr);
    void setFilterText(const QString& text);
    int matches() const; ///< tensors that are left

protected:
    bool filterAcceptsRow(int row, const QModelIndex& parent) const override;

private:
    LayerTableModel& source_;
    TensorFilter filter_;
};

} // namespace rankscope
