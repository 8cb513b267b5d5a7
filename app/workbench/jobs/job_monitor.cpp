// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/jobs/job_monitor.h"

#include "app/workbench/text.h"

#include <algorithm>

namespace rankscope {

namespace {
constexpr qsizetype k_most_warnings = 10000;
}

void JobMonitor::report(std::uint64_t done, std::uint64_t total, std::string_view what)
{
    done_.store(done, std::memory_order_relaxed);
    total_.store(total, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    if (stage_ != what)
        stage_ = what;
}

void JobMonitor::warn(std::string_view sentence)
{
    const std::lock_guard lock(mutex_);
    if (warnings_.size() >= k_most_warnings)
        warnings_.removeFirst();
    warnings_.append(toQString(sentence));
}

void JobMonitor::setItems(const QStringList& names)
{
    const std::lock_guard lock(mutex_);
    items_.clear();
    index_.clear();
    for (const QString& name : names) {
        index_.insert(name, items_.size());
        items_.append(JobItem{name, JobItem::State::Waiting, 0.0, {}});
    }
}

JobItem& JobMonitor::item(std::string_view name)
{
    const QString key = toQString(name);
    auto found = index_.constFind(key);
    if (found == index_.constEnd()) {
        found = index_.insert(key, items_.size());
        items_.append(JobItem{key, JobItem::State::Waiting, 0.0, {}});
    }
    return items_[*found];
}

void JobMonitor::setItemState(std::string_view name, JobItem::State state, std::string_view message)
{
    const std::lock_guard lock(mutex_);
    JobItem& changed = item(name);
    changed.state = state;
    changed.stage = toQString(message);
    if (state == JobItem::State::Done)
        changed.fraction = 1.0;
}

void JobMonitor::setItemProgress(std::string_view name, double fraction, std::string_view stage)
{
    const std::lock_guard lock(mutex_);
    JobItem& changed = item(name);
    if (changed.state == JobItem::State::Done || changed.state == JobItem::State::Failed)
        return;
    changed.fraction = std::clamp(fraction, 0.0, 1.0);
    changed.stage = toQString(stage);
}

void JobMonitor::setDeviceUse(const QString& summary, const QStringList& kernels)
{
    const std::lock_guard lock(mutex_);
    device_use_ = summary;
    kernels_ = kernels;
}

JobMonitor::Snapshot JobMonitor::snapshot() const
{
    Snapshot now;
    now.done = done_.load(std::memory_order_relaxed);
    now.total = total_.load(std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    now.stage = toQString(stage_);
    now.warnings = warnings_;
    now.items = items_;
    now.device_use = device_use_;
    now.kernels = kernels_;
    return now;
}

double JobMonitor::Snapshot::fraction() const
{
    if (!items.isEmpty()) {
        double sum = 0.0;
        for (const JobItem& part : items)
            sum += part.state == JobItem::State::Failed ? 1.0 : part.fraction;
        return sum / static_cast<double>(items.size());
    }
    if (total == 0)
        return -1.0;
    return std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
}

} // namespace rankscope
