// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"

#include <QHash>
#include <QString>
#include <QStringList>
#include <QVector>

#include <atomic>
#include <mutex>

namespace rankscope {

/// One part of a job that a person follows by name (a layer of a run).
struct JobItem {
    enum class State { Waiting, Running, Done, Failed };
    QString name;
    State state = State::Waiting;
    double fraction = 0.0; ///< of this item, 0…1
    QString stage;         ///< what it is doing, or why it failed
};

/// The Monitor of a job: core's threads write, the GUI thread samples. Nothing is signalled per report.
class JobMonitor final : public Monitor {
public:
    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override;
    void warn(std::string_view sentence) override;
    bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }
    void requestCancel() { cancelled_.store(true, std::memory_order_relaxed); }

    /// Declares the items, all waiting. Items named later that are not among them are added.
    void setItems(const QStringList& names);
    void setItemState(std::string_view name, JobItem::State state, std::string_view message);
    void setItemProgress(std::string_view name, double fraction, std::string_view stage);
    /// What a device did for the job: one line, and a line for each of its kernels.
    void setDeviceUse(const QString& summary, const QStringList& kernels);

    /// A consistent copy of everything reported so far.
    struct Snapshot {
        std::uint64_t done = 0;
        std::uint64_t total = 0; ///< 0: unknown
        QString stage;
        QStringList warnings;
        QVector<JobItem> items;
        QString device_use;  ///< empty: no device with timestamps, or not over yet
        QStringList kernels; ///< the longest first
        /// Share of the work that is done, 0…1; negative when unknown.
        double fraction() const;
    };
    Snapshot snapshot() const;

private:
    JobItem& item(std::string_view name);

    std::atomic<bool> cancelled_{false};
    std::atomic<std::uint64_t> done_{0};
    std::atomic<std::uint64_t> total_{0};
    mutable std::mutex mutex_;
    std::string stage_;
    QStringList warnings_;
    QVector<JobItem> items_;
    QHash<QString, qsizetype> index_;
    QString device_use_;
    QStringList kernels_;
};

} // namespace rankscope
