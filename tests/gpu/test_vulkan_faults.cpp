// SPDX-License-Identifier: GPL-3.0-or-later
// A Vulkan device that has no room, or is lost, at every moment of a layer job; and how matrices travel to
// memory that the host cannot see.
#include "core/base/thread_pool.h"
#include "core/methods/method.h"
#include "core/run/detail/layer_scheduler.h"
#include "core/run/run.h"
#include "gpu/faults.h"
#include "gpu/vulkan_backend.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_monitor.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

constexpr char k_layer[] = "model.layers.2.self_attn.q_proj";

std::unique_ptr<Backend> open(const VulkanOptions& options)
{
    auto backend = make_vulkan_backend(0, options);
    if (!backend)
        qFatal("%s", backend.error().sentence().c_str());
    return std::move(*backend);
}

} // namespace

class TestVulkanFaults : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase()
    {
        // Kept loaded, so that the leak check can name what the layer itself leaks (tests/support/lsan.supp).
        (void)dlopen("libVkLayer_khronos_validation.so", RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
        qputenv("XDG_CACHE_HOME", folder_.path().toUtf8());
        const auto devices = vulkan_devices();
        if (!devices || devices->empty() || !devices->front().usable)
            QSKIP("no Vulkan device here: install mesa-vulkan-drivers to run these tests");
        model_ = sample_model();
        calibration_ = small_calibration(place("calibration"));
        plan_ = sample_plan("odlri");
        for (LayerPlan& row : plan_.rows)
            row.include = row.layer == k_layer;
        VERIFY_OK(apply_setting(plan_, "*:iterations=2")); // enough to meet every kind of call
        const auto cpu = make_cpu_backend();
        on_cpu_ = run_on(*cpu, silent_monitor());
        QCOMPARE(on_cpu_.backend, std::string("cpu"));
    }

    void cleanupTestCase()
    {
        QStringList messages; // the devices of all tests are destroyed by now
        for (const std::string& message : validation_messages())
            messages << QString::fromStdString(message);
        QVERIFY2(messages.isEmpty(), qPrintable(messages.join('\n')));
    }

    /// One layer job after another, each of which finds the device full one range later than the one before.
    void full_device_at_every_range_data()
    {
        QTest::addColumn<bool>("ever_after");
        QTest::newRow("once") << false;
        QTest::newRow("from then on") << true;
    }
    void full_device_at_every_range()
    {
        QFETCH(bool, ever_after);
        const auto backend = open({.validation = true, .force_staging = true});
        inject_faults(*backend, {});
        const LayerResult whole = run_on(*backend, silent_monitor());
        QCOMPARE(whole.backend, std::string("vulkan:0"));
        const std::uint64_t ranges = counts_since_injection(*backend).ranges;
        QVERIFY(ranges > 50);
        std::uint64_t fallbacks = 0;
        for (std::uint64_t number = 1; number <= ranges; ++number) {
            TestMonitor monitor;
            inject_faults(*backend, {.full_at_range = number, .full_ever_after = ever_after});
            const LayerResult result = run_on(*backend, monitor);
            fallbacks += result.backend == "cpu" ? 1 : 0;
            check(result, monitor, result.backend == "cpu" ? on_cpu_ : whole, "no room");
            if (QTest::currentTestFailed())
                qFatal("at range %llu of %llu", static_cast<unsigned long long>(number),
                       static_cast<unsigned long long>(ranges));
        }
        qInfo("%llu ranges, %llu layers computed on the CPU", static_cast<unsigned long long>(ranges),
              static_cast<unsigned long long>(fallbacks));
        // A single failure is met by waiting for what the device is about to let go of; a full device is not.
        QCOMPARE(fallbacks, ever_after ? ranges : 0);
        inject_faults(*backend, {});
        TestMonitor monitor;
        check(run_on(*backend, monitor), monitor, whole, ""); // the device serves the next job as before
    }

    void device_lost_at_every_submit()
    {
        std::uint64_t submits = 0;
        {
            const auto backend = open({.force_staging = true});
            inject_faults(*backend, {});
            QCOMPARE(run_on(*backend, silent_monitor()).backend, std::string("vulkan:0"));
            submits = counts_since_injection(*backend).submits;
        }
        QVERIFY(submits > 10);
        qInfo("%llu submits", static_cast<unsigned long long>(submits));
        for (std::uint64_t number = 1; number <= submits; ++number) {
            const auto backend = open({.validation = number % 8 == 1, .force_staging = true});
            inject_faults(*backend, {.lost_at_submit = number});
            TestMonitor monitor;
            check(run_on(*backend, monitor), monitor, on_cpu_, "the device was lost");
            if (QTest::currentTestFailed())
                qFatal("at submit %llu", static_cast<unsigned long long>(number));
            try {
                (void)backend->upload(random_floats(3, 3, 1)); // nothing is guessed after that
                QFAIL("a lost device went on working");
            } catch (const BackendFailure& failure) {
                QCOMPARE(failure.error().kind, ErrorKind::NoDevice);
            }
        }
    }

    void too_small_a_device_says_so()
    {
        const auto backend = open({.validation = true, .memory_limit_bytes = 24U << 20});
        const Buffer kept = backend->upload(random_floats(1024, 1024, 1)); // 4 MiB
        try {
            (void)backend->allocate(4096, 2048); // 32 MiB
            QFAIL("more was given than there is");
        } catch (const BackendFailure& failure) {
            QCOMPARE(failure.error().kind, ErrorKind::NoSpace);
            const QString sentence = QString::fromStdString(failure.error().sentence());
            QVERIFY2(sentence.contains("32.0 MiB") && sentence.contains("20.0 MiB are free")
                         && sentence.contains("--memory"),
                     qPrintable(sentence));
        }
        QVERIFY(backend->download(kept) == random_floats(1024, 1024, 1));
        QVERIFY(backend->max_abs(backend->copy(kept)) > 0.0);
    }

    /// Of seven layers that would run at once only one finds room at a time.
    void parallel_layers_are_held_back_to_the_device()
    {
        const auto backend = open({.validation = true, .memory_limit_bytes = 21U << 20});
        const Buffer small =
            backend->upload(random_floats(3, 3, 1)); // its block serves the layers, 5 MiB are left
        std::mutex mutex;
        int running = 0;
        int most = 0;
        RunEvents events;
        events.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
            const std::lock_guard lock(mutex);
            running += state == LayerState::Running ? 1 : state == LayerState::Done ? -1 : 0;
            most = std::max(most, running);
        };
        TestMonitor monitor;
        set_thread_count(4);
        const auto results = run_block(*backend, monitor, events);
        set_thread_count(0);
        QCOMPARE(results.size(), std::size_t{7});
        for (const LayerResult& result : results)
            QCOMPARE(result.backend, std::string("vulkan:0"));
        QCOMPARE(most, 1);
    }

    void layers_beyond_the_device_are_the_cpus()
    {
        const auto backend = open({.validation = true, .memory_limit_bytes = 18U << 20});
        const Buffer small = backend->upload(random_floats(3, 3, 1)); // 2 MiB are left
        TestMonitor monitor;
        for (const LayerResult& result : run_block(*backend, monitor, {}))
            QCOMPARE(result.backend, std::string("cpu"));
        QCOMPARE(monitor.warnings().size(), std::size_t{1});
        const QString said = QString::fromStdString(monitor.warnings().front());
        QVERIFY2(said.contains("of the device's memory")
                     && said.contains("7 of 7 layers are computed on the CPU"),
                 qPrintable(said));
    }

    void a_layer_keeps_to_what_is_counted_for_it_data()
    {
        QTest::addColumn<QString>("method");
        for (const char* method : {"gptq", "caldera", "odlri", "lrq", "flexround"})
            QTest::newRow(method) << method;
    }
    void a_layer_keeps_to_what_is_counted_for_it()
    {
        QFETCH(QString, method);
        const SampleLayer layer = sample_layer({.out = 576, .in = 640, .tokens = 900}, 3);
        const Method& chosen = **require_method(method.toStdString());
        std::map<std::string, ParameterValue, std::less<>> given{{"bits", std::int64_t{3}}};
        if (chosen.info().find("iterations") != nullptr) {
            given["iterations"] = std::int64_t{2};
            given["rank"] = std::int64_t{32};
        }
        if (chosen.info().find("steps") != nullptr)
            given["steps"] = std::int64_t{3};
        auto parameters = Parameters::make(chosen.info(), given);
        VERIFY_OK(parameters);
        LayerPlan row;
        row.method = method.toStdString();
        row.parameters = *parameters;
        LinearLayer linear;
        linear.out = 576;
        linear.in = 640;
        const std::uint64_t counted = estimated_device_bytes(row, linear, true);
        // Whole blocks serve small ranges, one for what the device keeps and one for what is on its way.
        const auto backend = open({.memory_limit_bytes = counted + (16U << 20)});
        LayerProblem problem;
        problem.weight = backend->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        const auto done = chosen.decompose(problem, *parameters, *backend, silent_monitor());
        VERIFY_OK(done);
    }

    void large_matrices_travel_in_segments_data()
    {
        QTest::addColumn<int>("room_mib");
        QTest::newRow("as large as they like") << 0;
        QTest::newRow("small ones where there is little room") << 60;
    }
    void large_matrices_travel_in_segments()
    {
        QFETCH(int, room_mib);
        const auto backend = open({.validation = true,
                                   .force_staging = true,
                                   .memory_limit_bytes = static_cast<std::uint64_t>(room_mib) << 20});
        Matrix w(3001, 3203); // 36.7 MiB, no multiple of anything
        for (Index i = 0; i < w.size(); ++i)
            w.data()[i] = static_cast<float>(i % 16'777'213);
        Buffer buffer = backend->upload(w);
        const Buffer other = backend->upload(Matrix(w.topRows(300))); // while segments are under way
        backend->scale_rows(buffer, VectorD::Constant(w.rows(), 2.0));
        QVERIFY(backend->download(buffer) == Matrix(2.0F * w));
        QVERIFY(backend->download(other) == Matrix(w.topRows(300)));
        const TransferCounts counts = transfer_counts(*backend);
        QCOMPARE(counts.downloaded_bytes, static_cast<std::uint64_t>(4 * (w.size() + other.size())));
    }

private:
    fs::path place(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }

    LayerResult run_on(Backend& backend, Monitor& monitor) const
    {
        RunOptions options;
        options.replace = true;
        const auto done = Run::execute(model_, plan_, calibration_, place("run"), options, backend, monitor);
        if (!done)
            qFatal("%s", done.error().sentence().c_str());
        return (*Run::open(place("run")))->results().at(0);
    }

    /// All layers of one block.
    std::vector<LayerResult> run_block(Backend& backend, Monitor& monitor, const RunEvents& events) const
    {
        Plan plan = plan_;
        for (LayerPlan& row : plan.rows)
            row.include = row.layer.starts_with("model.layers.2.");
        RunOptions options;
        options.replace = true;
        const auto done =
            Run::execute(model_, plan, calibration_, place("block"), options, backend, monitor, events);
        if (!done)
            qFatal("%s", done.error().sentence().c_str());
        return (*Run::open(place("block")))->results();
    }

    /// The result as expected; a fallback is said once, with its reason.
    static void check(const LayerResult& result, const TestMonitor& monitor, const LayerResult& expected,
                      const char* reason)
    {
        QCOMPARE(result.backend, expected.backend);
        QCOMPARE(result.quality.relative_activation_error, expected.quality.relative_activation_error);
        std::vector<std::string> said;
        std::copy_if(
            monitor.warnings().begin(), monitor.warnings().end(), std::back_inserter(said),
            [](const std::string& line) { return line.find("The device failed") != std::string::npos; });
        QCOMPARE(said.size(), std::size_t{expected.backend == "cpu" ? 1U : 0U});
        if (!said.empty())
            QVERIFY2(said.front().find(reason) != std::string::npos, said.front().c_str());
    }

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const CalibrationStore> calibration_;
    Plan plan_;
    LayerResult on_cpu_;
};

QTEST_GUILESS_MAIN(TestVulkanFaults)
#include "test_vulkan_faults.moc"
