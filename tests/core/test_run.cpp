// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/byte_size.h"
#include "core/base/thread_pool.h"
#include "core/run/run.h"
#include "tests/support/run_fixture.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <future>
#include <mutex>
#include <set>

using namespace rankscope;
using rankscope::test::sample_plan;
namespace fs = std::filesystem;

namespace {

constexpr char k_last_layer[] = "model.layers.4.mlp.down_proj";
constexpr char k_child_option[] = "--child";

} // namespace

class TestRun : public QObject, protected test::RunFixture {
    Q_OBJECT

private slots:
    void initTestCase() { make_whole_run(); }
    void results_and_files();
    void stored_layer_equals_the_method();
    void bytes_do_not_depend_on_threads_or_memory();
    void one_layer_beyond_the_budget();
    void cancel_keeps_finished_layers();
    void pause_finishes_what_has_begun();
    void layers_that_are_asked_for_go_first();
    void killed_at_any_moment_data();
    void killed_at_any_moment();
    void second_process_is_refused();
    void resume_refuses_another_origin();
    void existing_folder_is_kept();
    void force_replaces_only_a_run();
    void methods_that_need_moments();
    void opening_what_is_no_run();
    void weights_of_a_run();
};

void TestRun::results_and_files()
{
    QVERIFY(Run::is_run(place("whole")));
    const auto run = Run::open(place("whole"));
    VERIFY_OK(run);
    QVERIFY((*run)->complete());
    const auto results = (*run)->results();
    QCOMPARE(results.size(), model_->linears().size());
    for (std::size_t i = 0; i < results.size(); ++i) {
        const LayerPlan& row = (*run)->plan().rows[i];
        const LayerResult& result = results[i];
        QCOMPARE(result.layer, row.layer);
        QCOMPARE(result.method, std::string("odlri"));
        QVERIFY(result.parameters == row.parameters.to_json());
        QCOMPARE(result.bits_per_weight, planned_bits_per_weight(row, *model_->find_linear(row.layer)));
        QVERIFY(result.quality.relative_activation_error > 0.0
                && result.quality.relative_activation_error < 0.5);
        QVERIFY(!result.trace.empty());
        QCOMPARE(result.backend, std::string("cpu"));
    }
    const auto reopened = (*run)->model();
    VERIFY_OK(reopened);
    QCOMPARE((*reopened)->checkpoint().header_hash(), model_->checkpoint().header_hash());
    QCOMPARE((*run)->plan().calibration_id, calibration_->id());
}

void TestRun::stored_layer_equals_the_method()
{
    const auto run = Run::open(place("whole"));
    VERIFY_OK(run);
    const LayerPlan& row = *(*run)->plan().find(k_last_layer);
    const LinearLayer& layer = *model_->find_linear(k_last_layer);
    const auto weight = model_->checkpoint().read(layer.weight());
    const auto moments = calibration_->moments(layer.input_group);
    QVERIFY(weight && moments);
    LayerProblem problem;
    problem.weight = backend_->upload(*weight);
    problem.moments = &*moments;
    problem.name = row.layer;
    problem.seed = (*run)->plan().seed;
    const auto direct = find_method("odlri")->decompose(problem, row.parameters, *backend_, silent_monitor());
    const auto stored = (*run)->decomposition(k_last_layer);
    VERIFY_OK(direct);
    VERIFY_OK(stored);
    QVERIFY(stored->reconstruct() == direct->reconstruct());
    QVERIFY(stored->quantized.codes == direct->quantized.codes);
    QVERIFY(stored->quantized.zeros == direct->quantized.zeros);
    QVERIFY(stored->quantized.grid.group == direct->quantized.grid.group);
    QCOMPARE(stored->outlier_channels, direct->outlier_channels);
    QCOMPARE(stored->bits_per_weight(), direct->bits_per_weight());
    QCOMPARE(stored->quantization_scale, direct->quantization_scale);
    QCOMPARE(stored->trace.size(), direct->trace.size());
    QVERIFY(!(*run)->decomposition("model.layers.7.mlp.down_proj"));
}

void TestRun::bytes_do_not_depend_on_threads_or_memory()
{
    for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        const fs::path run = place(QString("%1 threads").arg(threads));
        VERIFY_OK(execute(sample_plan("odlri"), run));
        QVERIFY2(layers_of(run) == whole_, run.c_str());
    }
    RunOptions tight;
    tight.memory_budget_bytes = resident_bytes() + (12 << 20); // about two layers at a time
    VERIFY_OK(execute(sample_plan("odlri"), place("tight"), tight));
    set_thread_count(0);
    QVERIFY(layers_of(place("tight")) == whole_);
}

void TestRun::one_layer_beyond_the_budget()
{
    RunOptions options;
    options.memory_budget_bytes = 100'000;
    const auto status = execute(sample_plan("odlri"), place("too small"), options);
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::NoSpace);
    QVERIFY(status.error().sentence().find("model.layers.0") != std::string::npos);
    QVERIFY(!fs::exists(place("too small"))); // said before the work starts
}

void TestRun::pause_finishes_what_has_begun()
{
    RunOptions options;
    options.control = std::make_shared<RunControl>();
    std::mutex mutex;
    std::set<std::string> begun;
    std::set<std::string> done;
    RunEvents events;
    events.layer_changed = [&](const std::string& layer, LayerState state, const std::string&) {
        const std::lock_guard lock(mutex);
        if (state == LayerState::Running && begun.insert(layer).second && begun.size() == 4)
            options.control->pause();
        if (state == LayerState::Done)
            done.insert(layer);
    };
    set_thread_count(2);
    const auto paused = execute(sample_plan("odlri"), place("paused"), options, silent_monitor(), events);
    set_thread_count(0);
    QVERIFY(!paused);
    QCOMPARE(paused.error().kind, ErrorKind::Cancelled);
    QVERIFY(begun == done);
    QVERIFY(begun.size() >= 4 && begun.size() <= 5); // another thread may have taken one at that moment
    RunOptions resume;
    resume.resume = true;
    VERIFY_OK(execute(sample_plan("odlri"), place("paused"), resume));
    QVERIFY(layers_of(place("paused")) == whole_);
}

void TestRun::layers_that_are_asked_for_go_first()
{
    RunOptions options;
    options.control = std::make_shared<RunControl>();
    options.control->run_next("no such layer");
    std::vector<std::string> order;
    RunEvents events;
    events.layer_changed = [&](const std::string& layer, LayerState state, const std::string&) {
        if (state != LayerState::Running)
            return;
        order.push_back(layer);
        if (order.size() == 2) {
            options.control->run_next("model.layers.3.mlp.down_proj");
            options.control->run_next("model.layers.4.mlp.up_proj");
        }
    };
    set_thread_count(1);
    const auto done = execute(sample_plan("odlri"), place("asked"), options, silent_monitor(), events);
    set_thread_count(0);
    VERIFY_OK(done);
    QVERIFY(order.size() > 5);
    QCOMPARE(order[0], sample_plan("odlri").rows[0].layer);
    QCOMPARE(order[2], std::string("model.layers.4.mlp.up_proj"));
    QCOMPARE(order[3], std::string("model.layers.3.mlp.down_proj"));
    QCOMPARE(order[4], sample_plan("odlri").rows[2].layer);
    QVERIFY(layers_of(place("asked")) == whole_);
}

void TestRun::cancel_keeps_finished_layers()
{
    test::TestMonitor monitor;
    std::atomic<int> done = 0;
    RunEvents events;
    events.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
        if (state == LayerState::Done && ++done == 3)
            monitor.cancel();
    };
    const auto stopped = execute(sample_plan("odlri"), place("cancelled"), {}, monitor, events);
    QVERIFY(!stopped);
    QCOMPARE(stopped.error().kind, ErrorKind::Cancelled);
    const auto partial = Run::open(place("cancelled"));
    VERIFY_OK(partial);
    QVERIFY((*partial)->results().size() >= 3);
    QVERIFY((*partial)->results().size() < model_->linears().size());
    QVERIFY(!(*partial)->complete());
    std::atomic<int> computed = 0;
    RunEvents count;
    count.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
        computed += state == LayerState::Running ? 1 : 0;
    };
    RunOptions resume;
    resume.resume = true;
    VERIFY_OK(execute(sample_plan("odlri"), place("cancelled"), resume, silent_monitor(), count));
    QCOMPARE(static_cast<std::size_t>(computed), model_->linears().size() - (*partial)->results().size());
    QVERIFY(layers_of(place("cancelled")) == whole_);
}

void TestRun::killed_at_any_moment_data()
{
    QTest::addColumn<int>("milliseconds");
    for (const int milliseconds : {30, 120, 250, 400, 650})
        QTest::addRow("after %d ms", milliseconds) << milliseconds;
}

void TestRun::killed_at_any_moment()
{
    QFETCH(int, milliseconds);
    const fs::path target = place(QString("killed %1").arg(milliseconds));
    QProcess child;
    child.start(QCoreApplication::applicationFilePath(), {k_child_option, QString::fromStdString(target),
                                                          QString::fromStdString(calibration_->path())});
    QVERIFY(child.waitForStarted());
    QTest::qWait(milliseconds);
    child.kill(); // SIGKILL
    child.waitForFinished();
    // Once more after it went on: a kill may come while the leftovers of another are cleared away.
    QProcess second;
    second.start(QCoreApplication::applicationFilePath(), {k_child_option, QString::fromStdString(target),
                                                           QString::fromStdString(calibration_->path())});
    QVERIFY(second.waitForStarted());
    QTest::qWait(milliseconds / 2 + 20);
    second.kill();
    second.waitForFinished();
    RunOptions resume;
    resume.resume = true;
    VERIFY_OK(execute(sample_plan("odlri"), target, resume));
    QVERIFY(layers_of(target) == whole_); // no more, no fewer, no part files
    const auto run = Run::open(target);
    VERIFY_OK(run);
    QVERIFY((*run)->complete());
}

void TestRun::second_process_is_refused()
{
    std::mutex mutex;
    std::condition_variable changed;
    bool running = false;
    bool go_on = false;
    RunEvents hold;
    hold.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
        if (state != LayerState::Running)
            return;
        std::unique_lock lock(mutex);
        running = true;
        changed.notify_all();
        changed.wait(lock, [&] { return go_on; });
    };
    auto first = std::async(std::launch::async, [&] {
        return execute(sample_plan("rtn"), place("locked"), {}, silent_monitor(), hold);
    });
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return running; });
    }
    RunOptions resume;
    resume.resume = true;
    RunOptions replace;
    replace.replace = true;
    const auto resumed = execute(sample_plan("rtn"), place("locked"), resume);
    const auto replaced = execute(sample_plan("rtn"), place("locked"), replace);
    {
        const std::lock_guard lock(mutex);
        go_on = true;
    }
    changed.notify_all();
    VERIFY_OK(first.get());
    QVERIFY(!resumed && !replaced);
    for (const Status* refused : {&resumed, &replaced}) {
        QCOMPARE(refused->error().kind, ErrorKind::BadInput);
        QVERIFY(refused->error().sentence().find("another process") != std::string::npos);
    }
    QCOMPARE(layers_of(place("locked")).size(), model_->linears().size());
}

void TestRun::resume_refuses_another_origin()
{
    VERIFY_OK(execute(sample_plan("rtn"), place("origin")));
    RunOptions resume;
    resume.resume = true;
    const auto before = test::folder_contents(place("origin"));
    Plan other = sample_plan("rtn");
    QVERIFY(apply_setting(other, std::string(k_last_layer) + ":bits=3"));
    const auto plan = execute(other, place("origin"), resume);
    QVERIFY(!plan);
    QVERIFY2(plan.error().sentence().find(k_last_layer) != std::string::npos,
             plan.error().sentence().c_str());
    other = sample_plan("rtn");
    other.seed = 6;
    QVERIFY(!execute(other, place("origin"), resume));
    const auto calibration = Run::execute(model_, sample_plan("rtn"), nullptr, place("origin"), resume,
                                          *backend_, silent_monitor());
    QVERIFY(!calibration);
    QVERIFY(calibration.error().sentence().find("calibration") != std::string::npos);
    other = sample_plan("rtn");
    other.checkpoint_hash = "0123";
    const auto checkpoint = execute(other, place("origin"), resume);
    QVERIFY(!checkpoint);
    QVERIFY(checkpoint.error().sentence().find("checkpoint") != std::string::npos);
    QVERIFY(test::folder_contents(place("origin")) == before);
    VERIFY_OK(execute(sample_plan("rtn"), place("origin"), resume)); // nothing is missing: nothing to do
}

void TestRun::existing_folder_is_kept()
{
    const auto before = test::folder_contents(place("whole"));
    const auto status = execute(sample_plan("odlri"), place("whole"));
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::BadInput);
    QVERIFY(status.error().sentence().find("--resume") != std::string::npos);
    QVERIFY(test::folder_contents(place("whole")) == before);
}

void TestRun::force_replaces_only_a_run()
{
    RunOptions replace;
    replace.replace = true;
    VERIFY_OK(execute(sample_plan("rtn"), place("forced")));
    VERIFY_OK(execute(sample_plan("odlri"), place("forced"), replace));
    QVERIFY(layers_of(place("forced")) == whole_);
    fs::create_directory(place("precious"));
    std::ofstream(place("precious") / "thesis.txt") << "years of work";
    const auto refused = execute(sample_plan("rtn"), place("precious"), replace);
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);
    QVERIFY(fs::exists(place("precious") / "thesis.txt"));
    QVERIFY(!execute(sample_plan("rtn"), place("precious")));
}

void TestRun::methods_that_need_moments()
{
    const auto status = Run::execute(model_, sample_plan("gptq"), nullptr, place("no moments"), {}, *backend_,
                                     silent_monitor());
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::Usage);
    QVERIFY(status.error().sentence().find("calibrat") != std::string::npos);
    QVERIFY(!fs::exists(place("no moments")));
    Plan nothing = sample_plan("rtn");
    QVERIFY(apply_setting(nothing, "*:include=false"));
    QVERIFY(!execute(nothing, place("nothing")));
}

void TestRun::opening_what_is_no_run()
{
    QVERIFY(!Run::is_run(test::sample_folder()));
    const auto sample = Run::open(test::sample_folder());
    QVERIFY(!sample);
    QCOMPARE(sample.error().kind, ErrorKind::BadInput);
    QVERIFY(!Run::open(place("not there")));
    VERIFY_OK(execute(sample_plan("rtn"), place("spoiled")));
    std::ofstream(place("spoiled") / "index.sqlite", std::ios::binary | std::ios::trunc)
        << "this is no database at all";
    const auto spoiled = Run::open(place("spoiled"));
    QVERIFY(!spoiled);
    QCOMPARE(spoiled.error().kind, ErrorKind::BadInput);
    QVERIFY(spoiled.error().sentence().find("index.sqlite") != std::string::npos);
}

void TestRun::weights_of_a_run()
{
    Plan plan = sample_plan("caldera");
    QVERIFY(apply_setting(plan, "*.mlp.*:include=false"));
    VERIFY_OK(execute(plan, place("attention only")));
    const auto run = Run::open(place("attention only"));
    VERIFY_OK(run);
    const auto weights = run_weights(model_, *run);
    const auto original = checkpoint_weights(model_);
    for (const char* name : {"model.layers.0.self_attn.k_proj", "model.layers.0.mlp.up_proj"}) {
        const LinearLayer& layer = *model_->find_linear(name);
        const auto replaced = weights->linear(layer, *backend_);
        const auto before = original->linear(layer, *backend_);
        VERIFY_OK(replaced);
        VERIFY_OK(before);
        const auto decomposition = (*run)->decomposition(name);
        if (!decomposition) { // not in the run: as it is in the checkpoint
            QVERIFY(backend_->download(replaced->weight) == backend_->download(before->weight));
            QVERIFY(replaced->left.empty());
            continue;
        }
        QVERIFY(backend_->download(replaced->weight) == decomposition->quantized.dequantize());
        QVERIFY(backend_->download(replaced->left) == decomposition->low_rank.left);
        QVERIFY(backend_->download(replaced->right) == decomposition->low_rank.right);
    }
    const std::vector<TokenId> ids = {1, 403, 407, 261, 378};
    const auto values = logits(*model_, *weights, ids, *backend_, silent_monitor());
    const auto reference = logits(*model_, *original, ids, *backend_, silent_monitor());
    VERIFY_OK(values);
    VERIFY_OK(reference);
    const double difference = static_cast<double>((*values - *reference).norm() / reference->norm());
    QVERIFY2(difference > 1e-4 && difference < 0.5, qPrintable(QString::number(difference)));
}

/// The child of killed_at_any_moment: computes (or goes on with) a run until it is killed.
int child_main(const fs::path& target, const fs::path& calibration)
{
    auto store = CalibrationStore::open(calibration);
    const auto backend = make_cpu_backend();
    RunOptions options;
    options.resume = true;
    return store
                   && Run::execute(test::sample_model(), sample_plan("odlri"), *store, target, options,
                                   *backend, silent_monitor())
               ? 0
               : 1;
}

int main(int argc, char** argv)
{
    if (argc == 4 && std::string_view(argv[1]) == k_child_option)
        return child_main(argv[2], argv[3]);
    QCoreApplication application(argc, argv);
    TestRun test;
    return QTest::qExec(&test, argc, argv);
}

#include "test_run.moc"
