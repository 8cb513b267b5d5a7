// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_runner.h"

#include <QAbstractItemModel>
#include <QVector>

namespace rankscope {

/// Jobs and, inside, their layers; newest job at the bottom.
class JobModel : public QAbstractItemModel {
    Q_OBJECT

public:
    enum Column { Title, State, Progress, Stage, Rate, Elapsed, Left, k_columns };
    enum Roles { JobRole = Qt::UserRole + 1, FractionRole }; ///< FractionRole: 0…1, negative when unknown

    explicit JobModel(JobRunner& runner, QObject* parent = nullptr);

    JobId jobAt(const QModelIndex& index) const; ///< of the job or of the job that holds the item; 0: none
    QModelIndex indexOf(JobId job) const;
    bool waits(const QModelIndex& item) const; ///< an item that has not begun

    QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
    QModelIndex parent(const QModelIndex& child) const override;
    int rowCount(const QModelIndex& parent = {}) const override;
    int columnCount(const QModelIndex& parent = {}) const override;
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

private:
    void add(JobId id);
    void refresh(JobId id);
    void reset();
    int rowOf(JobId id) const;
    QString jobText(const JobInfo& job, int column) const;
    QString itemText(const JobItem& item, int column) const;

    JobRunner& runner_;
    QVector<JobInfo> jobs_;
};

QString stateText(JobState state);

} // namespace rankscope
