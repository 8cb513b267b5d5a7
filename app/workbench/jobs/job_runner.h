// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/jobs/job_monitor.h"
#include "core/base/result.h"

#include <QObject>
#include <QPointer>
#include <QThreadPool>
#include <QTimer>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace rankscope {

using JobId = quint64;

enum class JobState { Queued, Running, Done, Failed, Cancelled };

/// Work: one at a time, in the order started (calibrate, run, evaluate, export). View: answers to a click;
/// these do not wait for the work.
enum class JobLane { Work, View };

struct JobSpec {
    QString title;
    JobLane lane = JobLane::Work;
    bool shown = true; ///< listed in the job panel
};

/// What the job panel shows of a job at one moment.
struct JobInfo {
    JobId id = 0;
    QString title;
    JobLane lane = JobLane::Work;
    bool shown = true;
    JobState state = JobState::Queued;
    JobMonitor::Snapshot progress;
    double elapsed_seconds = 0.0;
    double left_seconds = -1.0; ///< negative: not known yet
    QString message;            ///< why it failed
};

/// Seconds that are left after `elapsed` seconds for a share `fraction` of the work; negative while it is too
/// early to say (below 5 % and fewer than 3 finished units).
double estimateSecondsLeft(double elapsed, double fraction, std::uint64_t finished_units);

/// Runs core's long functions on worker threads. Results come back to the GUI thread as immutable shared
/// values, through the event queue; progress is sampled ten times a second. Everything public is for the GUI
/// thread.
class JobRunner : public QObject {
    Q_OBJECT

public:
    explicit JobRunner(QObject* parent = nullptr);
    ~JobRunner() override;

    /// Starts `work`. `finished` is called on the GUI thread, once, unless `context` is gone by then; a job
    /// that was cancelled gets an Error of kind Cancelled. Exceptions of `work` arrive as Errors.
    template <class T>
    JobId start(const JobSpec& spec, QObject* context, std::function<Result<T>(JobMonitor&)> work,
                std::function<void(const Result<T>&)> finished)
    {
        return enqueue(
            spec, context, [work = std::move(work), finished = std::move(finished)](JobMonitor& monitor) {
                Completion completion;
                std::shared_ptr<const Result<T>> result;
                const auto failure =
                    guarded([&] { result = std::make_shared<const Result<T>>(work(monitor)); }, monitor);
                if (failure)
                    result = std::make_shared<const Result<T>>(*failure);
                if (!result->has_value())
                    completion.error = result->error();
                completion.deliver = [result, finished] { finished(*result); };
                return completion;
            });
    }

    /// Cancels everything and waits until no worker runs any more.
    void shutDown();
    void cancel(JobId id);
    void cancelAll();
    /// No job is queued or running (or none of this lane).
    bool idle() const;
    bool idle(JobLane lane) const;

    const std::vector<JobId>& jobs() const { return order_; } ///< oldest first; finished ones stay listed
    JobInfo info(JobId id) const;
    /// Forgets finished jobs.
    void clearFinished();

Q_SIGNALS:
    void jobAdded(rankscope::JobId id);
    void jobChanged(rankscope::JobId id);
    void jobFinished(rankscope::JobId id);
    void cleared();
    void becameIdle();

private:
    struct Completion {
        std::optional<Error> error;
        std::function<void()> deliver;
    };
    struct Job;
    using Body = std::function<Completion(JobMonitor&)>;

    JobId enqueue(const JobSpec& spec, QObject* context, Body body);
    static std::optional<Error> guarded(const std::function<void()>& work, const JobMonitor& monitor);
    void finish(const std::shared_ptr<Job>& job, const Completion& completion);
    void sample();
    std::shared_ptr<Job> find(JobId id) const;

    std::vector<JobId> order_;
    QHash<JobId, std::shared_ptr<Job>> jobs_;
    JobId next_id_ = 1;
    QTimer sampler_;
    QThreadPool work_pool_;
    QThreadPool view_pool_;
};

} // namespace rankscope
