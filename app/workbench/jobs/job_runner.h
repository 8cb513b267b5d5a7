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

/// Work: one at a time, in the order of the queue (calibrate, run, evaluate, export). View: answers to a
/// click; these do not wait for the work.
enum class JobLane { Work, View };

struct JobSpec {
    QString title;
    JobLane lane = JobLane::Work;
    bool shown = true; ///< listed in the job panel
    /// What else can be asked of it; empty: nothing of the kind. For the GUI thread.
    std::function<void()> pause{};                       ///< ends as soon as what it has begun is finished
    std::function<void(const QString& item)> run_next{}; ///< this waiting item before the others
    std::function<void()> retry{};                       ///< of an ended job: goes on with what is missing
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
    bool paused = false;        ///< asked to pause
    bool can_pause = false;
    bool can_run_next = false; ///< the whole job, or a waiting item of it
    bool can_retry = false;
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
    /// What the job's spec offers; nothing where it does not.
    void pause(JobId id);
    void runItemNext(JobId id, const QString& item);
    void retry(JobId id);
    /// A job that waits in the queue goes `by` places towards its end (negative: its front), as far as there
    /// are any.
    void move(JobId id, int by);
    void runNext(JobId id);
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
    void reordered();
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
    void dispatch(const std::shared_ptr<Job>& job, QThreadPool& pool);
    void startNextWork();
    void finish(const std::shared_ptr<Job>& job, const Completion& completion);
    void sample();
    std::shared_ptr<Job> find(JobId id) const;

    std::vector<JobId> order_;
    QHash<JobId, std::shared_ptr<Job>> jobs_;
    JobId next_id_ = 1;
    QTimer sampler_;
    std::vector<std::shared_ptr<Job>> waiting_; ///< of the work lane, the next one first
    bool working_ = false;
    QThreadPool work_pool_;
    QThreadPool view_pool_;
};

} // namespace rankscope
