// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/jobs/job_runner.h"

#include "app/workbench/text.h"
#include "core/compute/backend.h"

#include <algorithm>
#include <new>
#include <utility>

namespace rankscope {

using Clock = std::chrono::steady_clock;

struct JobRunner::Job {
    JobId id = 0;
    JobSpec spec;
    QPointer<QObject> context;
    bool had_context = false;
    Body body;
    bool paused = false; // GUI thread, as the next one
    bool retried = false;
    JobMonitor monitor;
    std::atomic<bool> running{false};
    std::atomic<Clock::rep> started{0}; // ticks; set by the worker
    std::atomic<Clock::rep> ended{0};
    JobState final_state = JobState::Queued; // GUI thread; Queued until finished
    QString message;

    JobState state() const
    {
        if (final_state != JobState::Queued)
            return final_state;
        return running.load(std::memory_order_acquire) ? JobState::Running : JobState::Queued;
    }
    double elapsedSeconds() const
    {
        const auto begin = started.load(std::memory_order_acquire);
        if (begin == 0)
            return 0.0;
        const auto end = ended.load(std::memory_order_acquire);
        const auto last = end != 0 ? end : Clock::now().time_since_epoch().count();
        return std::chrono::duration<double>(Clock::duration(last - begin)).count();
    }
};

double estimateSecondsLeft(double elapsed, double fraction, std::uint64_t finished_units)
{
    if (fraction <= 0.0 || (fraction < 0.05 && finished_units < 3))
        return -1.0;
    return std::max(0.0, elapsed * (1.0 - fraction) / fraction);
}

JobRunner::JobRunner(QObject* parent) : QObject(parent)
{
    work_pool_.setMaxThreadCount(1);
    view_pool_.setMaxThreadCount(3);
    sampler_.setInterval(100);
    connect(&sampler_, &QTimer::timeout, this, &JobRunner::sample);
}

JobRunner::~JobRunner() { shutDown(); }

void JobRunner::shutDown()
{
    sampler_.stop();
    waiting_.clear();
    cancelAll();
    work_pool_.waitForDone();
    view_pool_.waitForDone();
}

JobId JobRunner::enqueue(const JobSpec& spec, QObject* context, Body body)
{
    auto job = std::make_shared<Job>();
    job->id = next_id_++;
    job->spec = spec;
    job->context = context;
    job->had_context = context != nullptr;
    job->body = std::move(body);
    jobs_.insert(job->id, job);
    order_.push_back(job->id);
    Q_EMIT jobAdded(job->id);
    if (!sampler_.isActive())
        sampler_.start();

    if (spec.lane == JobLane::View) {
        dispatch(job, view_pool_);
    } else {
        waiting_.push_back(job);
        startNextWork();
    }
    return job->id;
}

void JobRunner::startNextWork()
{
    if (working_ || waiting_.empty())
        return;
    working_ = true;
    const auto job = waiting_.front();
    waiting_.erase(waiting_.begin());
    dispatch(job, work_pool_);
}

void JobRunner::dispatch(const std::shared_ptr<Job>& job, QThreadPool& pool)
{
    const bool work = &pool == &work_pool_;
    pool.start([this, job, work] {
        job->started.store(Clock::now().time_since_epoch().count(), std::memory_order_release);
        job->running.store(true, std::memory_order_release);
        const Completion completion = std::exchange(job->body, {})(job->monitor);
        job->ended.store(Clock::now().time_since_epoch().count(), std::memory_order_release);
        QMetaObject::invokeMethod(
            this,
            [this, job, completion, work] {
                working_ = working_ && !work;
                finish(job, completion);
            },
            Qt::QueuedConnection);
    });
}

std::optional<Error> JobRunner::guarded(const std::function<void()>& work, const JobMonitor& monitor)
{
    try {
        monitor.throw_if_cancelled();
        work();
        return std::nullopt;
    } catch (const Cancelled&) {
        return Error{ErrorKind::Cancelled, "Stopped on request; finished work is kept", {}, {}};
    } catch (const BackendFailure& failure) {
        return failure.error();
    } catch (const std::bad_alloc&) {
        return Error{ErrorKind::NoSpace,
                     "There is not enough memory for this",
                     {},
                     "Close other programs or use a smaller model"};
    } catch (const std::exception& failure) {
        return internal_error(std::string("Something failed that never should: ") + failure.what());
    }
}

namespace {

/// A job whose items did not all succeed is not done, even if it has a result.
JobState stateOfItems(const QVector<JobItem>& items, QString& message)
{
    const auto count = [&items](JobItem::State state) {
        return std::count_if(items.cbegin(), items.cend(),
                             [state](const JobItem& item) { return item.state == state; });
    };
    if (const auto failed = count(JobItem::State::Failed); failed > 0) {
        message = QStringLiteral("%1 of %2 failed").arg(failed).arg(items.size());
        return JobState::Failed;
    }
    return count(JobItem::State::Done) == items.size() ? JobState::Done : JobState::Cancelled;
}

} // namespace

void JobRunner::finish(const std::shared_ptr<Job>& job, const Completion& completion)
{
    startNextWork();
    if (!completion.error) {
        job->final_state = stateOfItems(job->monitor.snapshot().items, job->message);
    } else if (completion.error->kind == ErrorKind::Cancelled) {
        job->final_state = JobState::Cancelled;
    } else {
        job->final_state = JobState::Failed;
        job->message = toQString(completion.error->sentence());
    }
    Q_EMIT jobChanged(job->id);
    if (!job->had_context || job->context)
        completion.deliver();
    Q_EMIT jobFinished(job->id);
    // Hidden jobs (a click's picture) would pile up by the hundreds: they are forgotten at once.
    if (!job->spec.shown) {
        jobs_.remove(job->id);
        std::erase(order_, job->id);
    }
    if (idle()) {
        sampler_.stop();
        Q_EMIT becameIdle();
    }
}

void JobRunner::sample()
{
    for (const JobId id : std::vector<JobId>(order_)) {
        const auto job = find(id);
        if (job && job->spec.shown && job->state() == JobState::Running)
            Q_EMIT jobChanged(id);
    }
}

void JobRunner::cancel(JobId id)
{
    const auto job = find(id);
    if (!job)
        return;
    job->monitor.requestCancel();
    // What waits behind a long job says at once that it is cancelled.
    if (std::erase(waiting_, job) > 0)
        dispatch(job, view_pool_);
}

void JobRunner::cancelAll()
{
    for (const auto& job : std::as_const(jobs_))
        job->monitor.requestCancel();
    for (const auto& job : std::exchange(waiting_, {}))
        dispatch(job, view_pool_);
}

void JobRunner::pause(JobId id)
{
    const auto job = find(id);
    if (!job || !job->spec.pause || job->paused || job->state() != JobState::Running)
        return;
    job->paused = true;
    job->spec.pause();
    Q_EMIT jobChanged(id);
}

void JobRunner::runItemNext(JobId id, const QString& item)
{
    const auto job = find(id);
    if (!job || !job->spec.run_next || job->final_state != JobState::Queued)
        return;
    job->spec.run_next(item);
    job->monitor.setItemProgress(toStd(item), 0.0, "next");
    Q_EMIT jobChanged(id);
}

void JobRunner::retry(JobId id)
{
    const auto job = find(id);
    if (!job || !info(id).can_retry)
        return;
    job->retried = true;
    job->spec.retry();
    Q_EMIT jobChanged(id);
}

void JobRunner::move(JobId id, int by)
{
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [id](const std::shared_ptr<Job>& job) { return job->id == id; });
    if (found == waiting_.end())
        return;
    const auto job = *found;
    const auto place = static_cast<int>(found - waiting_.begin());
    const int target = std::clamp(place + by, 0, static_cast<int>(waiting_.size()) - 1);
    if (target == place)
        return;
    waiting_.erase(found);
    waiting_.insert(waiting_.begin() + target, job);
    // The list shows the queue: its jobs take the places that they have among them, in the new order.
    auto next = waiting_.cbegin();
    for (JobId& shown : order_) {
        const bool queued =
            std::any_of(waiting_.cbegin(), waiting_.cend(),
                        [shown](const std::shared_ptr<Job>& one) { return one->id == shown; });
        if (queued)
            shown = (*next++)->id;
    }
    Q_EMIT reordered();
}

void JobRunner::runNext(JobId id) { move(id, -static_cast<int>(waiting_.size())); }

bool JobRunner::idle() const { return idle(JobLane::Work) && idle(JobLane::View); }

bool JobRunner::idle(JobLane lane) const
{
    return std::none_of(jobs_.cbegin(), jobs_.cend(), [lane](const std::shared_ptr<Job>& job) {
        return job->spec.lane == lane && job->final_state == JobState::Queued;
    });
}

JobInfo JobRunner::info(JobId id) const
{
    JobInfo result;
    const auto job = find(id);
    if (!job)
        return result;
    result.id = id;
    result.title = job->spec.title;
    result.lane = job->spec.lane;
    result.shown = job->spec.shown;
    result.state = job->state();
    result.progress = job->monitor.snapshot();
    result.elapsed_seconds = job->elapsedSeconds();
    result.message = job->message;
    const bool ended = job->final_state != JobState::Queued;
    result.paused = job->paused;
    result.can_pause = job->spec.pause && result.state == JobState::Running && !job->paused;
    result.can_run_next = job->spec.run_next && !ended;
    result.can_retry = job->spec.retry && !job->retried && ended && result.state != JobState::Done;
    if (const auto place = std::find(waiting_.begin(), waiting_.end(), job); place != waiting_.end())
        result.can_run_next = place != waiting_.begin();
    if (result.state == JobState::Running) {
        const auto& items = result.progress.items;
        const auto finished =
            static_cast<std::uint64_t>(std::count_if(items.cbegin(), items.cend(), [](const JobItem& item) {
                return item.state == JobItem::State::Done;
            }));
        result.left_seconds = estimateSecondsLeft(result.elapsed_seconds, result.progress.fraction(),
                                                  items.isEmpty() ? result.progress.done : finished);
    }
    return result;
}

void JobRunner::clearFinished()
{
    std::erase_if(order_, [this](JobId id) { return find(id)->final_state != JobState::Queued; });
    for (auto it = jobs_.begin(); it != jobs_.end();)
        it = (*it)->final_state != JobState::Queued ? jobs_.erase(it) : std::next(it);
    Q_EMIT cleared();
}

std::shared_ptr<JobRunner::Job> JobRunner::find(JobId id) const { return jobs_.value(id); }

} // namespace rankscope
