// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_runner.h"

#include <QHash>

namespace rankscope {

/// View-driven work: a tag per view. A new request with a tag cancels the one before it, and only the newest
/// request's answer is delivered, so that a fast click through layers never ends on an old picture.
class LatestWins {
public:
    explicit LatestWins(JobRunner& runner) : runner_(runner) {}

    template <class T>
    void request(const QString& tag, const JobSpec& spec, QObject* context,
                 std::function<Result<T>(JobMonitor&)> work, std::function<void(const Result<T>&)> finished)
    {
        drop(tag);
        const quint64 ticket = ++tickets_[tag];
        const JobId id =
            runner_.start<T>(spec, context, std::move(work),
                             [this, tag, ticket, finished = std::move(finished)](const Result<T>& result) {
                                 if (tickets_.value(tag) == ticket) {
                                     running_.remove(tag);
                                     finished(result);
                                 }
                             });
        running_.insert(tag, id);
    }

    /// Cancels what the tag waits for; its answer will not be delivered.
    void drop(const QString& tag)
    {
        ++tickets_[tag];
        if (running_.contains(tag))
            runner_.cancel(running_.take(tag));
    }
    bool waiting(const QString& tag) const { return running_.contains(tag); }

private:
    JobRunner& runner_;
    QHash<QString, quint64> tickets_;
    QHash<QString, JobId> running_;
};

} // namespace rankscope
