// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/jobs/job_runner.h"
#include "app/workbench/jobs/latest_wins.h"
#include "core/compute/backend.h"

#include <QElapsedTimer>
#include <QSignalSpy>
#include <QTest>
#include <QThread>

#include <thread>

using namespace rankscope;

namespace {

/// Works until it is cancelled, reporting as core does.
Result<int> endless(JobMonitor& monitor, std::atomic<bool>* started = nullptr)
{
    for (std::uint64_t step = 0;; ++step) {
        monitor.report(step, 0, "turns");
        if (started)
            started->store(true);
        monitor.throw_if_cancelled();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

} // namespace

class TestJobRunner : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void hands_results_over_on_the_gui_thread();
    void turns_exceptions_into_errors();
    void cancels_within_a_second();
    void cancels_what_still_waits_in_the_queue();
    void runs_work_one_at_a_time_but_pictures_beside_it();
    void samples_progress_and_items();
    void the_queue_can_be_reordered();
    void pauses_and_goes_on();
    void forgets_hidden_jobs();
    void delivers_nothing_to_a_context_that_is_gone();
    void waits_for_workers_when_destroyed();
    void lets_the_latest_request_win();
    void estimates_the_time_left();
};

void TestJobRunner::hands_results_over_on_the_gui_thread()
{
    JobRunner runner;
    QThread* worker = nullptr;
    QThread* receiver = nullptr;
    int answer = 0;
    const JobId id = runner.start<int>(
        {QStringLiteral("answer")}, this,
        [&worker](JobMonitor&) -> Result<int> {
            worker = QThread::currentThread();
            return 42;
        },
        [&](const Result<int>& result) {
            receiver = QThread::currentThread();
            answer = result ? *result : -1;
        });
    QVERIFY(!runner.idle());
    QTRY_COMPARE(answer, 42);
    QCOMPARE(receiver, QThread::currentThread());
    QVERIFY(worker != QThread::currentThread());
    QTRY_VERIFY(runner.idle());
    QCOMPARE(runner.info(id).state, JobState::Done);
}

void TestJobRunner::turns_exceptions_into_errors()
{
    JobRunner runner;
    QVector<ErrorKind> kinds;
    QStringList messages;
    const auto collect = [&](const Result<int>& result) {
        QVERIFY(!result);
        kinds << result.error().kind;
        messages << QString::fromStdString(result.error().sentence());
    };
    runner.start<int>(
        {QStringLiteral("memory")}, this, [](JobMonitor&) -> Result<int> { throw std::bad_alloc(); },
        collect);
    runner.start<int>(
        {QStringLiteral("device")}, this,
        [](JobMonitor&) -> Result<int> {
            throw BackendFailure(Error{ErrorKind::NoDevice, "The device was lost", "layer 12", {}});
        },
        collect);
    runner.start<int>(
        {QStringLiteral("bug")}, this,
        [](JobMonitor&) -> Result<int> { throw std::runtime_error("impossible"); }, collect);
    const JobId plain = runner.start<int>(
        {QStringLiteral("plain")}, this,
        [](JobMonitor&) -> Result<int> { return bad_input("It is torn", "x.bin"); }, collect);
    QTRY_COMPARE(kinds.size(), 4);
    QCOMPARE(kinds, (QVector<ErrorKind>{ErrorKind::NoSpace, ErrorKind::NoDevice, ErrorKind::Internal,
                                        ErrorKind::BadInput}));
    QVERIFY(messages[1].contains(QStringLiteral("layer 12")));
    QVERIFY(messages[2].contains(QStringLiteral("impossible")));
    QTRY_COMPARE(runner.info(plain).state, JobState::Failed);
    QVERIFY(runner.info(plain).message.contains(QStringLiteral("x.bin")));
}

void TestJobRunner::cancels_within_a_second()
{
    JobRunner runner;
    std::atomic<bool> started{false};
    bool cancelled = false;
    const JobId id = runner.start<int>(
        {QStringLiteral("endless")}, this, [&](JobMonitor& monitor) { return endless(monitor, &started); },
        [&](const Result<int>& result) {
            cancelled = !result && result.error().kind == ErrorKind::Cancelled;
        });
    QTRY_VERIFY(started.load());
    QElapsedTimer clock;
    clock.start();
    runner.cancel(id);
    QTRY_VERIFY_WITH_TIMEOUT(cancelled, 1000);
    QVERIFY(clock.elapsed() < 1000);
    QCOMPARE(runner.info(id).state, JobState::Cancelled);
}

void TestJobRunner::cancels_what_still_waits_in_the_queue()
{
    JobRunner runner;
    std::atomic<bool> started{false};
    std::atomic<bool> second_ran{false};
    bool second_cancelled = false;
    const JobId first = runner.start<int>(
        {QStringLiteral("first")}, this, [&](JobMonitor& monitor) { return endless(monitor, &started); },
        [](const Result<int>&) {});
    const JobId second = runner.start<int>(
        {QStringLiteral("second")}, this,
        [&](JobMonitor&) -> Result<int> {
            second_ran = true;
            return 1;
        },
        [&](const Result<int>& result) { second_cancelled = !result; });
    QTRY_VERIFY(started.load());
    QCOMPARE(runner.info(second).state, JobState::Queued);
    runner.cancel(second);
    runner.cancel(first);
    QTRY_VERIFY(second_cancelled);
    QVERIFY(!second_ran.load());
}

void TestJobRunner::runs_work_one_at_a_time_but_pictures_beside_it()
{
    JobRunner runner;
    std::atomic<int> inside{0};
    std::atomic<int> most{0};
    int done = 0;
    for (int i = 0; i < 4; ++i) {
        runner.start<int>(
            {QStringLiteral("work %1").arg(i)}, this,
            [&, i](JobMonitor&) -> Result<int> {
                most = std::max(most.load(), ++inside);
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                --inside;
                return i;
            },
            [&done](const Result<int>& result) { QCOMPARE(*result, done++); });
    }
    bool picture = false;
    bool picture_before_work = false;
    runner.start<int>(
        {QStringLiteral("picture"), JobLane::View, false}, this, [](JobMonitor&) -> Result<int> { return 1; },
        [&](const Result<int>&) {
            picture = true;
            picture_before_work = done < 4;
        });
    QTRY_VERIFY(done == 4 && picture);
    QCOMPARE(most.load(), 1);
    QVERIFY(picture_before_work);
}

void TestJobRunner::samples_progress_and_items()
{
    JobRunner runner;
    QSignalSpy changes(&runner, &JobRunner::jobChanged);
    std::atomic<bool> go_on{false};
    const JobId id = runner.start<int>(
        {QStringLiteral("layers")}, this,
        [&](JobMonitor& monitor) -> Result<int> {
            monitor.setItems(
                {QStringLiteral("a"), QStringLiteral("b"), QStringLiteral("c"), QStringLiteral("d")});
            monitor.setItemState("a", JobItem::State::Done, {});
            monitor.setItemState("b", JobItem::State::Running, {});
            monitor.setItemProgress("b", 0.5, "refine");
            monitor.setItemState("c", JobItem::State::Failed, "not positive definite");
            monitor.warn("damping was raised");
            monitor.report(1, 4, "layer");
            while (!go_on.load())
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            return 0;
        },
        [](const Result<int>&) {});
    QTRY_VERIFY(!changes.isEmpty() && runner.info(id).progress.items.size() == 4);
    QTRY_COMPARE(runner.info(id).progress.stage, QStringLiteral("layer"));
    const JobInfo info = runner.info(id);
    QCOMPARE(info.state, JobState::Running);
    QCOMPARE(info.progress.fraction(), (1.0 + 0.5 + 1.0) / 4.0);
    QCOMPARE(info.progress.items[1].stage, QStringLiteral("refine"));
    QCOMPARE(info.progress.warnings, QStringList{QStringLiteral("damping was raised")});
    QVERIFY(info.elapsed_seconds > 0.0);
    go_on = true;
    QTRY_COMPARE(runner.info(id).state, JobState::Failed); // one of its parts is missing
    QCOMPARE(runner.info(id).message, QStringLiteral("1 of 4 failed"));
    runner.clearFinished();
    QVERIFY(runner.jobs().empty());
}

void TestJobRunner::the_queue_can_be_reordered()
{
    JobRunner runner;
    QSignalSpy reordered(&runner, &JobRunner::reordered);
    std::atomic<bool> started{false};
    QStringList order;
    const auto queue = [&](const QString& name) {
        return runner.start<int>(
            {name}, this, [](JobMonitor&) -> Result<int> { return 1; },
            [&order, name](const Result<int>& result) {
                order << (result ? name : name + QStringLiteral(" cancelled"));
            });
    };
    const JobId first = runner.start<int>(
        {QStringLiteral("first")}, this, [&](JobMonitor& monitor) { return endless(monitor, &started); },
        [](const Result<int>&) {});
    const JobId a = queue(QStringLiteral("a"));
    const JobId b = queue(QStringLiteral("b"));
    const JobId c = queue(QStringLiteral("c"));
    const JobId d = queue(QStringLiteral("d"));
    QTRY_VERIFY(started.load());
    QVERIFY(!runner.info(first).can_run_next && !runner.info(a).can_run_next); // it is next already
    QVERIFY(runner.info(b).can_run_next);
    runner.runNext(c);
    QVERIFY(runner.jobs() == (std::vector<JobId>{first, c, a, b, d}));
    runner.move(a, 1);
    QVERIFY(runner.jobs() == (std::vector<JobId>{first, c, b, a, d}));
    runner.move(d, 5);     // it is the last one
    runner.move(first, 1); // it runs
    QVERIFY(runner.jobs() == (std::vector<JobId>{first, c, b, a, d}));
    QCOMPARE(reordered.size(), 2);
    runner.cancel(d); // answers although another job runs
    QTRY_COMPARE(order, QStringList{QStringLiteral("d cancelled")});
    runner.cancel(first);
    QTRY_COMPARE(order, (QStringList{QStringLiteral("d cancelled"), QStringLiteral("c"), QStringLiteral("b"),
                                     QStringLiteral("a")}));
}

void TestJobRunner::pauses_and_goes_on()
{
    JobRunner runner;
    std::atomic<bool> pause{false};
    QStringList asked;
    int retries = 0;
    JobSpec spec{QStringLiteral("layers")};
    spec.pause = [&pause] { pause = true; };
    spec.run_next = [&asked](const QString& item) { asked << item; };
    spec.retry = [&retries] { ++retries; };
    const JobId id = runner.start<int>(
        spec, this,
        [&](JobMonitor& monitor) -> Result<int> {
            monitor.setItems({QStringLiteral("a"), QStringLiteral("b")});
            monitor.setItemState("a", JobItem::State::Done, {});
            while (!pause.load())
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            return 0;
        },
        [](const Result<int>&) {});
    QTRY_VERIFY(runner.info(id).can_pause && runner.info(id).progress.items.size() == 2);
    QVERIFY(!runner.info(id).can_retry);
    runner.retry(id); // nothing: it runs
    runner.runItemNext(id, QStringLiteral("b"));
    QCOMPARE(asked, QStringList{QStringLiteral("b")});
    runner.pause(id);
    QVERIFY(runner.info(id).paused && !runner.info(id).can_pause);
    QTRY_COMPARE(runner.info(id).state, JobState::Cancelled); // b is missing
    QVERIFY(runner.info(id).can_retry && !runner.info(id).can_run_next);
    runner.retry(id);
    runner.retry(id); // the new job has it now
    QCOMPARE(retries, 1);
    QVERIFY(!runner.info(id).can_retry);
}

void TestJobRunner::forgets_hidden_jobs()
{
    JobRunner runner;
    int done = 0;
    for (int i = 0; i < 50; ++i)
        runner.start<int>(
            {QStringLiteral("hidden"), JobLane::View, false}, this,
            [](JobMonitor&) -> Result<int> { return 1; }, [&done](const Result<int>&) { ++done; });
    QTRY_COMPARE(done, 50);
    QTRY_VERIFY(runner.jobs().empty());
}

void TestJobRunner::delivers_nothing_to_a_context_that_is_gone()
{
    JobRunner runner;
    auto* receiver = new QObject;
    bool delivered = false;
    std::atomic<bool> go_on{false};
    runner.start<int>(
        {QStringLiteral("late")}, receiver,
        [&go_on](JobMonitor&) -> Result<int> {
            while (!go_on.load())
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            return 1;
        },
        [&delivered](const Result<int>&) { delivered = true; });
    delete receiver;
    go_on = true;
    QTRY_VERIFY(runner.idle());
    QVERIFY(!delivered);
}

void TestJobRunner::waits_for_workers_when_destroyed()
{
    std::atomic<bool> started{false};
    std::atomic<bool> ended{false};
    bool delivered = false;
    {
        JobRunner runner;
        runner.start<int>(
            {QStringLiteral("endless")}, this,
            [&](JobMonitor& monitor) -> Result<int> {
                struct AtEnd {
                    std::atomic<bool>& flag;
                    ~AtEnd() { flag = true; }
                } at_end{ended};
                return endless(monitor, &started);
            },
            [&delivered](const Result<int>&) { delivered = true; });
        QTRY_VERIFY(started.load());
    }
    QVERIFY(ended.load());
    QTest::qWait(20);
    QVERIFY(!delivered);
}

void TestJobRunner::lets_the_latest_request_win()
{
    JobRunner runner;
    LatestWins latest(runner);
    QStringList delivered;
    std::atomic<int> cancelled{0};
    for (int i = 0; i < 20; ++i) {
        const QString name = QString::number(i);
        latest.request<QString>(
            QStringLiteral("spectrum"), {name, JobLane::View, false}, this,
            [&cancelled, name](JobMonitor& monitor) -> Result<QString> {
                for (int turn = 0; turn < 20; ++turn) {
                    if (monitor.cancelled())
                        ++cancelled;
                    monitor.throw_if_cancelled();
                    std::this_thread::sleep_for(std::chrono::milliseconds(2));
                }
                return name;
            },
            [&delivered](const Result<QString>& result) {
                delivered << (result ? *result : QStringLiteral("error"));
            });
        QTest::qWait(3);
    }
    QVERIFY(latest.waiting(QStringLiteral("spectrum")));
    QTRY_VERIFY(runner.idle());
    QCOMPARE(delivered, QStringList{QStringLiteral("19")});
    QVERIFY(cancelled.load() > 0);

    bool other = false; // another tag is not disturbed
    latest.request<int>(
        QStringLiteral("channels"), {QStringLiteral("c"), JobLane::View, false}, this,
        [](JobMonitor&) -> Result<int> { return 1; }, [&other](const Result<int>&) { other = true; });
    latest.drop(QStringLiteral("spectrum"));
    QTRY_VERIFY(other);
}

void TestJobRunner::estimates_the_time_left()
{
    QVERIFY(estimateSecondsLeft(1.0, 0.0, 0) < 0.0);
    QVERIFY(estimateSecondsLeft(1.0, 0.01, 1) < 0.0);
    QCOMPARE(estimateSecondsLeft(10.0, 0.25, 0), 30.0);
    QVERIFY(estimateSecondsLeft(10.0, 0.04, 3) > 0.0);
    QCOMPARE(estimateSecondsLeft(10.0, 1.0, 4), 0.0);
}

QTEST_MAIN(TestJobRunner)
#include "test_job_runner.moc"
