// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/job_model.h"

#include "app/workbench/models/number_format.h"

#include <algorithm>

namespace rankscope {

namespace {

constexpr quintptr k_top = 0; // else the number of the parent job plus one

QString itemState(JobItem::State state)
{
    switch (state) {
    case JobItem::State::Waiting:
        return QStringLiteral("waiting");
    case JobItem::State::Running:
        return QStringLiteral("running");
    case JobItem::State::Done:
        return QStringLiteral("done");
    case JobItem::State::Failed:
        return QStringLiteral("failed");
    }
    return {};
}

bool isNumeric(int column) { return column >= JobModel::Rate; }

} // namespace

QString stateText(JobState state)
{
    switch (state) {
    case JobState::Queued:
        return QStringLiteral("queued");
    case JobState::Running:
        return QStringLiteral("running");
    case JobState::Done:
        return QStringLiteral("done");
    case JobState::Failed:
        return QStringLiteral("failed");
    case JobState::Cancelled:
        return QStringLiteral("stopped");
    }
    return {};
}

JobModel::JobModel(JobRunner& runner, QObject* parent) : QAbstractItemModel(parent), runner_(runner)
{
    connect(&runner_, &JobRunner::jobAdded, this, &JobModel::add);
    connect(&runner_, &JobRunner::jobChanged, this, &JobModel::refresh);
    connect(&runner_, &JobRunner::cleared, this, &JobModel::reset);
    connect(&runner_, &JobRunner::reordered, this, &JobModel::reset);
    reset();
}

void JobModel::reset()
{
    beginResetModel();
    jobs_.clear();
    for (const JobId id : runner_.jobs()) {
        const JobInfo info = runner_.info(id);
        if (info.shown)
            jobs_.append(info);
    }
    endResetModel();
}

void JobModel::add(JobId id)
{
    const JobInfo info = runner_.info(id);
    if (!info.shown)
        return;
    const int row = static_cast<int>(jobs_.size());
    beginInsertRows({}, row, row);
    jobs_.append(info);
    endInsertRows();
}

int JobModel::rowOf(JobId id) const
{
    const auto found =
        std::find_if(jobs_.cbegin(), jobs_.cend(), [id](const JobInfo& job) { return job.id == id; });
    return found == jobs_.cend() ? -1 : static_cast<int>(std::distance(jobs_.cbegin(), found));
}

void JobModel::refresh(JobId id)
{
    const int row = rowOf(id);
    if (row < 0)
        return;
    JobInfo now = runner_.info(id);
    const QModelIndex parent = index(row, 0);
    const int before = static_cast<int>(jobs_[row].progress.items.size());
    const int after = static_cast<int>(now.progress.items.size());
    if (after > before) {
        beginInsertRows(parent, before, after - 1);
        jobs_[row] = std::move(now);
        endInsertRows();
    } else if (after < before) {
        beginRemoveRows(parent, after, before - 1);
        jobs_[row] = std::move(now);
        endRemoveRows();
    } else {
        jobs_[row] = std::move(now);
    }
    Q_EMIT dataChanged(index(row, 0), index(row, k_columns - 1));
    if (after > 0)
        Q_EMIT dataChanged(index(0, 0, parent), index(after - 1, k_columns - 1, parent));
}

JobId JobModel::jobAt(const QModelIndex& index) const
{
    if (!index.isValid())
        return 0;
    const qsizetype row =
        index.internalId() == k_top ? index.row() : static_cast<qsizetype>(index.internalId()) - 1;
    return jobs_[row].id;
}

QModelIndex JobModel::indexOf(JobId job) const
{
    const int row = rowOf(job);
    return row < 0 ? QModelIndex() : index(row, 0);
}

bool JobModel::waits(const QModelIndex& item) const
{
    if (!item.isValid() || item.internalId() == k_top)
        return false;
    const JobInfo& job = jobs_[static_cast<qsizetype>(item.internalId()) - 1];
    return job.progress.items[item.row()].state == JobItem::State::Waiting;
}

QModelIndex JobModel::index(int row, int column, const QModelIndex& parent) const
{
    if (!hasIndex(row, column, parent))
        return {};
    return createIndex(row, column, parent.isValid() ? static_cast<quintptr>(parent.row()) + 1 : k_top);
}

QModelIndex JobModel::parent(const QModelIndex& child) const
{
    if (!child.isValid() || child.internalId() == k_top)
        return {};
    return createIndex(static_cast<int>(child.internalId()) - 1, 0, k_top);
}

int JobModel::rowCount(const QModelIndex& parent) const
{
    if (!parent.isValid())
        return static_cast<int>(jobs_.size());
    if (parent.column() != 0 || parent.internalId() != k_top)
        return 0;
    return static_cast<int>(jobs_[parent.row()].progress.items.size());
}

int JobModel::columnCount(const QModelIndex&) const { return k_columns; }

QString JobModel::jobText(const JobInfo& job, int column) const
{
    const double fraction = job.progress.fraction();
    const auto& items = job.progress.items;
    const auto finished =
        items.isEmpty()
            ? static_cast<double>(job.progress.done)
            : static_cast<double>(std::count_if(items.cbegin(), items.cend(), [](const JobItem& item) {
                  return item.state == JobItem::State::Done;
              }));
    switch (column) {
    case Title:
        return job.title;
    case State:
        if (job.paused && job.state == JobState::Running)
            return QStringLiteral("pausing");
        return job.paused && job.state == JobState::Cancelled ? QStringLiteral("paused")
                                                              : stateText(job.state);
    case Progress:
        if (job.state == JobState::Done)
            return QStringLiteral("100 %");
        return fraction < 0.0 ? QString() : QStringLiteral("%1 %").arg(static_cast<int>(fraction * 100.0));
    case Stage:
        if (!job.message.isEmpty())
            return job.message;
        return job.state == JobState::Running ? job.progress.stage : job.progress.device_use;
    case Rate:
        if (job.elapsed_seconds < 0.2 || finished < 1.0 || job.progress.total <= 1)
            return {};
        return QStringLiteral("%1/s").arg(formatNumber(finished / job.elapsed_seconds, 3));
    case Elapsed:
        return job.elapsed_seconds > 0.0 ? formatElapsed(job.elapsed_seconds) : QString();
    case Left:
        return job.left_seconds >= 0.0 ? formatTimeLeft(job.left_seconds) : QString();
    default:
        return {};
    }
}

QString JobModel::itemText(const JobItem& item, int column) const
{
    switch (column) {
    case Title:
        return item.name;
    case State:
        return itemState(item.state);
    case Progress:
        return item.state == JobItem::State::Running || item.state == JobItem::State::Done
                   ? QStringLiteral("%1 %").arg(static_cast<int>(item.fraction * 100.0))
                   : QString();
    case Stage:
        return item.state == JobItem::State::Done ? QString() : item.stage;
    default:
        return {};
    }
}

QVariant JobModel::data(const QModelIndex& index, int role) const
{
    if (!index.isValid())
        return {};
    if (role == JobRole)
        return static_cast<qulonglong>(jobAt(index));
    if (role == Qt::TextAlignmentRole)
        return static_cast<int>((isNumeric(index.column()) ? Qt::AlignRight : Qt::AlignLeft)
                                | Qt::AlignVCenter);
    const bool nested = index.internalId() != k_top;
    const JobInfo& job = jobs_[nested ? static_cast<qsizetype>(index.internalId()) - 1 : index.row()];
    const JobItem* item = nested ? &job.progress.items[index.row()] : nullptr;
    switch (role) {
    case Qt::DisplayRole:
    case Qt::ToolTipRole:
        return item ? itemText(*item, index.column()) : jobText(job, index.column());
    case FractionRole:
        if (item)
            return item->state == JobItem::State::Waiting ? -1.0 : item->fraction;
        return job.state == JobState::Done     ? 1.0
               : job.state == JobState::Queued ? -1.0
                                               : job.progress.fraction();
    default:
        return {};
    }
}

QVariant JobModel::headerData(int section, Qt::Orientation orientation, int role) const
{
    if (orientation != Qt::Horizontal || section < 0 || section >= k_columns)
        return {};
    static const QStringList titles = {QStringLiteral("Job"),      QStringLiteral("State"),
                                       QStringLiteral("Progress"), QStringLiteral("Stage"),
                                       QStringLiteral("Rate"),     QStringLiteral("Elapsed"),
                                       QStringLiteral("Left")};
    if (role == Qt::DisplayRole)
        return titles[section];
    if (role == Qt::TextAlignmentRole)
        return static_cast<int>((isNumeric(section) ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    return {};
}

} // namespace rankscope
