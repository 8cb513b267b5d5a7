// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "core/evaluate/text_comparison.h"
#include "core/run/run.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <atomic>
#include <fstream>

using namespace rankscope;
using rankscope::test::sample_plan;
namespace fs = std::filesystem;

namespace {

constexpr char k_first_block[] = "model.layers.0.";

RunOptions propagated()
{
    RunOptions options;
    options.propagate = true;
    options.text = test::sample_folder() / "calibration.txt";
    options.samples = 24;
    options.length = 128;
    return options;
}

} // namespace

/// Runs in which each block sees what the compressed blocks before it hand on.
class TestPropagation : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void first_block_is_that_of_a_plain_run();
    void brings_the_model_nearer_to_the_original();
    void errors_are_those_of_the_streams();
    void bytes_do_not_depend_on_threads_or_memory();
    void interrupted_anywhere_data();
    void interrupted_anywhere();
    void resume_refuses_another_stream();
    void what_cannot_be_propagated();
    void failed_layer_stops_at_its_block();

private:
    fs::path place(const QString& name) const
    {
        return fs::path(folder_.path().toStdString()) / name.toStdString();
    }
    Status execute(const Plan& plan, const fs::path& folder, const RunOptions& options,
                   Monitor& monitor = silent_monitor(), const RunEvents& events = {}) const
    {
        return Run::execute(model_, plan, calibration_, folder, options, *backend_, monitor, events);
    }
    std::map<std::string, std::string> layers_of(const fs::path& run) const
    {
        return test::folder_contents(run / "layers");
    }
    TextComparison against_original(const fs::path& folder) const;

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const CalibrationStore> calibration_; ///< of the same windows
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    Plan plan_;
    std::map<std::string, std::string> whole_; ///< layer files of an uninterrupted propagated run
};

void TestPropagation::initTestCase()
{
    model_ = test::sample_model();
    const RunOptions options = propagated();
    CalibrationOptions calibration;
    calibration.samples = options.samples;
    calibration.length = options.length;
    VERIFY_OK(
        calibrate(model_, options.text, place("calibration"), calibration, *backend_, silent_monitor()));
    calibration_ = *CalibrationStore::open(place("calibration"));
    plan_ = sample_plan("gptq");
    QVERIFY(apply_setting(plan_, "*:bits=3"));
    VERIFY_OK(execute(plan_, place("plain"), {}));
    VERIFY_OK(execute(plan_, place("whole"), options));
    whole_ = layers_of(place("whole"));
    QCOMPARE(whole_.size(), model_->linears().size());
}

TextComparison TestPropagation::against_original(const fs::path& folder) const
{
    const auto run = Run::open(folder);
    if (!run)
        qFatal("%s", run.error().sentence().c_str());
    const auto original = checkpoint_weights(model_);
    const auto compressed = run_weights(model_, *run);
    PerplexityOptions options;
    options.length = 128;
    auto both =
        compare_on_text({model_, original.get()}, {model_, compressed.get()},
                        test::sample_folder() / "evaluation.txt", options, *backend_, silent_monitor());
    if (!both)
        qFatal("%s", both.error().sentence().c_str());
    return *both;
}

void TestPropagation::first_block_is_that_of_a_plain_run()
{
    // No block before it: both streams are one, and the moments are the calibration's.
    int same = 0;
    int other = 0;
    for (const auto& [name, content] : layers_of(place("plain"))) {
        if (name.starts_with(k_first_block)) {
            QVERIFY2(whole_.at(name) == content, name.c_str());
            ++same;
        } else {
            other += whole_.at(name) == content ? 0 : 1;
        }
    }
    QCOMPARE(same, 7);
    QCOMPARE(same + other, static_cast<int>(whole_.size())); // every later layer saw something else
}

void TestPropagation::brings_the_model_nearer_to_the_original()
{
    const TextComparison plain = against_original(place("plain"));
    const TextComparison streams = against_original(place("whole"));
    qInfo() << "perplexity" << plain.original.perplexity << "GPTQ, 3 bits:" << plain.compressed.perplexity
            << "propagated:" << streams.compressed.perplexity << "mean KL:" << plain.divergence.mean_kl
            << "and" << streams.divergence.mean_kl;
    QVERIFY(streams.compressed.perplexity < plain.compressed.perplexity);
    QVERIFY(streams.divergence.mean_kl < plain.divergence.mean_kl);
}

void TestPropagation::errors_are_those_of_the_streams()
{
    const auto plain = Run::open(place("plain"));
    const auto streams = Run::open(place("whole"));
    VERIFY_OK(plain);
    VERIFY_OK(streams);
    const auto alone = (*plain)->results();
    const auto with_others = (*streams)->results();
    QCOMPARE(alone.size(), with_others.size());
    for (std::size_t i = 0; i < alone.size(); ++i) {
        const double before = alone[i].quality.relative_activation_error;
        const double after = with_others[i].quality.relative_activation_error;
        if (alone[i].layer.starts_with(k_first_block))
            QVERIFY2(std::abs(after - before) <= 1e-5 * before, alone[i].layer.c_str());
        QVERIFY2(std::isfinite(after) && after > 0.0 && after < 1.0, alone[i].layer.c_str());
    }
}

void TestPropagation::bytes_do_not_depend_on_threads_or_memory()
{
    const int before = thread_count();
    set_thread_count(1);
    VERIFY_OK(execute(plan_, place("one thread"), propagated()));
    set_thread_count(5);
    VERIFY_OK(execute(plan_, place("five threads"), propagated()));
    set_thread_count(before);
    QVERIFY(layers_of(place("one thread")) == whole_);
    QVERIFY(layers_of(place("five threads")) == whole_);
}

void TestPropagation::interrupted_anywhere_data()
{
    QTest::addColumn<int>("layers");
    QTest::newRow("in the first block") << 3;
    QTest::newRow("between two blocks") << 14;
    QTest::newRow("in the last block") << 32;
}

void TestPropagation::interrupted_anywhere()
{
    QFETCH(int, layers);
    const fs::path target = place(QString("interrupted %1").arg(layers));
    test::TestMonitor monitor;
    std::atomic<int> done = 0;
    RunEvents events;
    events.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
        if (state == LayerState::Done && ++done == layers)
            monitor.cancel();
    };
    const auto stopped = execute(plan_, target, propagated(), monitor, events);
    QVERIFY(!stopped);
    QCOMPARE(stopped.error().kind, ErrorKind::Cancelled);
    QVERIFY(layers_of(target).size() < whole_.size());
    RunOptions resume = propagated();
    resume.resume = true;
    VERIFY_OK(execute(plan_, target, resume));
    QVERIFY(layers_of(target) == whole_);
}

void TestPropagation::resume_refuses_another_stream()
{
    RunOptions resume;
    resume.resume = true;
    const auto plain = execute(plan_, place("whole"), resume);
    QVERIFY(!plain);
    QVERIFY2(plain.error().sentence().find("--propagate") != std::string::npos,
             plain.error().sentence().c_str());
    RunOptions fewer = propagated();
    fewer.resume = true;
    fewer.samples = 12;
    QVERIFY(!execute(plan_, place("whole"), fewer));
    RunOptions late = propagated();
    late.resume = true;
    const auto made_without = execute(plan_, place("plain"), late);
    QVERIFY(!made_without);
    QVERIFY(made_without.error().sentence().find("without --propagate") != std::string::npos);
    QVERIFY(layers_of(place("whole")) == whole_);
}

void TestPropagation::what_cannot_be_propagated()
{
    RunOptions no_text = propagated();
    no_text.text.clear();
    const auto without = execute(plan_, place("no text"), no_text);
    QVERIFY(!without);
    QCOMPARE(without.error().kind, ErrorKind::Usage);
    QVERIFY(without.error().sentence().find("--text") != std::string::npos);
    Plan learned = plan_;
    VERIFY_OK(apply_setting(learned, "model.layers.0.mlp.up_proj:method=flexround,objective=block"));
    const auto blocks = execute(learned, place("blocks"), propagated());
    QVERIFY(!blocks);
    QVERIFY(blocks.error().sentence().find("objective=layer") != std::string::npos);
    RunOptions small = propagated();
    small.memory_budget_bytes = 1 << 20;
    const auto budget = execute(plan_, place("small"), small);
    QVERIFY(!budget);
    QCOMPARE(budget.error().kind, ErrorKind::NoSpace);
    for (const char* name : {"no text", "blocks", "small"})
        QVERIFY2(!fs::exists(place(name)), name);
}

void TestPropagation::failed_layer_stops_at_its_block()
{
    test::copy_sample_with(place("broken"), "model.layers.1.mlp.up_proj.weight",
                           std::numeric_limits<float>::quiet_NaN());
    const auto model = Model::open(place("broken"));
    VERIFY_OK(model);
    const auto status = Run::execute(*model, sample_plan("gptq"), nullptr, place("broken run"), propagated(),
                                     *backend_, silent_monitor());
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::BadInput);
    const auto run = Run::open(place("broken run"));
    VERIFY_OK(run);
    QCOMPARE((*run)->results().size(), std::size_t{7}); // the block before it
}

QTEST_GUILESS_MAIN(TestPropagation)
#include "test_propagation.moc"
