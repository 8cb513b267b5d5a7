// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/models/job_model.h"
#include "app/workbench/models/layer_table_model.h"
#include "app/workbench/models/number_format.h"
#include "app/workbench/models/plan_model.h"
#include "app/workbench/models/run_model.h"
#include "app/workbench/models/tensor_filter.h"
#include "app/workbench/plan_presets.h"
#include "app/workbench/text.h"
#include "tests/support/test_paths.h"

#include <QAbstractItemModelTester>
#include <QSignalSpy>
#include <QTemporaryDir>
#include <QTest>

#include <thread>

using namespace rankscope;

namespace {

std::shared_ptr<const Model> sample()
{
    static const auto model = Model::open(test::sample_folder());
    return model ? *model : nullptr;
}

/// The sample with a plan, as the window has it after opening.
void open(Session& session, const QString& preset_id = QStringLiteral("odlri-2"))
{
    OpenedModel opened;
    opened.model = sample();
    session.open(opened);
    for (const PlanPreset& preset : planPresets()) {
        if (preset.id == preset_id) {
            const auto plan = presetPlan(preset, *sample());
            if (plan)
                session.resetPlan(*plan);
        }
    }
}

} // namespace

class TestItemModels : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void layer_table_groups_tensors_by_block();
    void layer_filter_finds_and_sorts();
    void filter_words_data();
    void filter_words();
    void plan_edits_one_row_or_all_selected();
    void plan_refuses_illegal_values_with_the_reason();
    void plan_changes_methods_and_keeps_what_both_know();
    void plan_fills_down();
    void plan_predicts_errors_from_spectra();
    void dragging_the_rank_is_one_undo_step();
    void presets_fit_every_layer();
    void selection_has_a_history();
    void job_model_follows_the_runner();
    void run_model_lists_finished_layers();
    void numbers_are_short_and_plain();
};

void TestItemModels::initTestCase() { QVERIFY(sample()); }

void TestItemModels::layer_table_groups_tensors_by_block()
{
    Session session;
    LayerTableModel model(session);
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    QCOMPARE(model.rowCount(), 0);
    open(session);

    int tensors = 0;
    int groups = 0;
    for (int row = 0; row < model.rowCount(); ++row) {
        const QModelIndex top = model.index(row, 0);
        const int children = model.rowCount(top);
        tensors += children > 0 ? children : 1;
        groups += children > 0 ? 1 : 0;
    }
    QCOMPARE(tensors, static_cast<int>(sample()->checkpoint().tensors().size()));
    QCOMPARE(groups, static_cast<int>(sample()->config().blocks));

    const QModelIndex down = model.indexOf(QStringLiteral("model.layers.2.mlp.down_proj.weight"));
    QVERIFY(down.isValid());
    QVERIFY(down.parent().isValid());
    QCOMPARE(down.data().toString(), QStringLiteral("mlp.down_proj"));
    QCOMPARE(down.siblingAtColumn(LayerTableModel::Role).data().toString(), QStringLiteral("down"));
    QCOMPARE(down.siblingAtColumn(LayerTableModel::ShapeColumn).data().toString(),
             QStringLiteral("64 × 172"));
    QCOMPARE(down.siblingAtColumn(LayerTableModel::Kurtosis).data().toString(), noValue());
    QCOMPARE(down.siblingAtColumn(LayerTableModel::Planned).data().toString(),
             QStringLiteral("ODLRI 2-bit r8"));
    QVERIFY(!model.indexOf(QStringLiteral("no.such.tensor")).isValid());
    session.close();
    QCOMPARE(model.rowCount(), 0);
}

void TestItemModels::layer_filter_finds_and_sorts()
{
    Session session;
    LayerTableModel model(session);
    LayerFilterModel proxy(model);
    QAbstractItemModelTester tester(&proxy, QAbstractItemModelTester::FailureReportingMode::QtTest);
    open(session);
    const auto all = static_cast<int>(sample()->checkpoint().tensors().size());
    QCOMPARE(proxy.matches(), all);
    proxy.setFilterText(QStringLiteral("role:down"));
    QCOMPARE(proxy.matches(), 5);
    proxy.setFilterText(QStringLiteral("model.layers.*.mlp.* layer:1-2"));
    QCOMPARE(proxy.matches(), 6);
    proxy.setFilterText(QStringLiteral("nothing like this"));
    QCOMPARE(proxy.matches(), 0);
    QCOMPARE(proxy.rowCount(), 0);
    proxy.setFilterText({});
    proxy.sort(LayerTableModel::Size, Qt::DescendingOrder);
    quint64 before = std::numeric_limits<quint64>::max();
    for (int row = 0; row < proxy.rowCount(); ++row) {
        const quint64 bytes =
            proxy.index(row, LayerTableModel::Size).data(LayerTableModel::SortRole).toULongLong();
        QVERIFY(bytes <= before);
        before = bytes;
    }
}

void TestItemModels::filter_words_data()
{
    QTest::addColumn<QString>("filter");
    QTest::addColumn<bool>("expected");
    QTest::newRow("empty") << "" << true;
    QTest::newRow("blanks") << "  \t " << true;
    QTest::newRow("inside") << "DOWN" << true;
    QTest::newRow("absent") << "gate" << false;
    QTest::newRow("glob") << "model.layers.*.mlp.down_proj" << true;
    QTest::newRow("glob with suffix") << "*.down_proj.weight" << true;
    QTest::newRow("glob anchored") << "layers.*" << false;
    QTest::newRow("question mark") << "model.layers.1?.mlp.*" << true;
    QTest::newRow("role") << "role:down" << true;
    QTest::newRow("role no prefix") << "role:dow" << false;
    QTest::newRow("dtype") << "dtype:bf16" << true;
    QTest::newRow("dtype other") << "dtype:f32" << false;
    QTest::newRow("block") << "layer:12" << true;
    QTest::newRow("range") << "layer:10-20" << true;
    QTest::newRow("range backwards") << "layer:20-10" << true;
    QTest::newRow("range outside") << "layer:0-9" << false;
    QTest::newRow("kurtosis above") << "kurtosis>8" << true;
    QTest::newRow("kurtosis below") << "kurtosis<8" << false;
    QTest::newRow("not measured") << "max/rms>1" << false;
    QTest::newRow("all must match") << "down role:gate" << false;
    QTest::newRow("not a comparison") << "kurtosis>" << false;
}

void TestItemModels::filter_words()
{
    QFETCH(QString, filter);
    QFETCH(bool, expected);
    TensorFacts tensor;
    tensor.name = QStringLiteral("model.layers.12.mlp.down_proj.weight");
    tensor.role = QStringLiteral("down");
    tensor.dtype = QStringLiteral("BF16");
    tensor.block = 12;
    tensor.kurtosis = 50.0;
    QCOMPARE(TensorFilter(filter).matches(tensor), expected);
}

void TestItemModels::plan_edits_one_row_or_all_selected()
{
    Session session;
    PlanModel model(session);
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    QCOMPARE(model.rowCount(), 0);
    open(session);
    QCOMPARE(model.rowCount(), 35);
    const auto rank = [&](int row) { return model.index(row, PlanModel::Rank).data().toString(); };

    QVERIFY(model.setData(model.index(3, PlanModel::Rank), 12));
    QCOMPARE(rank(3), QStringLiteral("12"));
    QCOMPARE(rank(2), QStringLiteral("8"));

    QSignalSpy edited(&model, &PlanModel::edited);
    model.setSelectedRows({4, 5, 6, 7});
    QVERIFY(model.setData(model.index(5, PlanModel::Rank), 16));
    QCOMPARE(edited.size(), 1);
    QCOMPARE(edited.first().first().toString(), QStringLiteral("rank = 16 on 4 rows"));
    for (const int row : {4, 5, 6, 7})
        QCOMPARE(rank(row), QStringLiteral("16"));
    QCOMPARE(session.undoStack().count(), 2);
    session.undoStack().undo();
    for (const int row : {4, 5, 6, 7})
        QCOMPARE(rank(row), QStringLiteral("8"));
    QCOMPARE(rank(3), QStringLiteral("12"));
    session.undoStack().redo();
    QCOMPARE(rank(7), QStringLiteral("16"));

    // A row outside the selection is edited alone.
    QVERIFY(model.setData(model.index(9, PlanModel::Bits), 3));
    QCOMPARE(model.index(4, PlanModel::Bits).data().toString(), QStringLiteral("2"));

    model.setSelectedRows({0, 1});
    QVERIFY(model.setData(model.index(0, PlanModel::Include), Qt::Unchecked, Qt::CheckStateRole));
    QCOMPARE(model.index(1, PlanModel::Include).data(Qt::CheckStateRole).toInt(),
             static_cast<int>(Qt::Unchecked));
    QVERIFY(model.footer().contains(QStringLiteral("33 of 35 layers")));
}

void TestItemModels::plan_refuses_illegal_values_with_the_reason()
{
    Session session;
    PlanModel model(session);
    open(session);
    QSignalSpy refused(&model, &PlanModel::refused);
    const Plan before = session.plan();
    const int k_row = model.rowOf(QStringLiteral("model.layers.0.self_attn.k_proj")); // 32 × 64
    QVERIFY(k_row >= 0);

    QVERIFY(!model.setData(model.index(k_row, PlanModel::Rank), 33));
    QCOMPARE(refused.size(), 1);
    QVERIFY2(refused.last().first().toString().contains(QStringLiteral("32 × 64")),
             qPrintable(refused.last().first().toString()));
    QVERIFY(!model.setData(model.index(k_row, PlanModel::Bits), 0));
    QVERIFY(!model.setData(model.index(k_row, PlanModel::Rank), QStringLiteral("many")));
    QVERIFY(!model.setData(model.index(k_row, PlanModel::Rank), -1));
    QCOMPARE(refused.size(), 4);
    // One illegal row among several: nothing changes at all.
    model.setSelectedRows({0, k_row});
    QVERIFY(!model.setData(model.index(0, PlanModel::Rank), 40));
    QCOMPARE(refused.size(), 5);
    QCOMPARE(session.plan().rows, before.rows);
    QCOMPARE(session.undoStack().count(), 0);
    // Not editable at all.
    QVERIFY(!model.setData(model.index(0, PlanModel::Size), 3));
    QVERIFY(!(model.flags(model.index(0, PlanModel::PredictedError)) & Qt::ItemIsEditable));
}

void TestItemModels::plan_changes_methods_and_keeps_what_both_know()
{
    Session session;
    PlanModel model(session);
    open(session);
    QVERIFY(model.setData(model.index(0, PlanModel::Group), 32));
    QVERIFY(model.setData(model.index(0, PlanModel::MethodColumn), QStringLiteral("rtn")));
    QCOMPARE(model.index(0, PlanModel::Group).data().toString(), QStringLiteral("32"));
    QCOMPARE(model.index(0, PlanModel::Bits).data().toString(), QStringLiteral("2"));
    QCOMPARE(model.index(0, PlanModel::Rank).data().toString(), noValue());
    QVERIFY(!(model.flags(model.index(0, PlanModel::Rank)) & Qt::ItemIsEditable));

    QSignalSpy refused(&model, &PlanModel::refused);
    QVERIFY(!model.setData(model.index(0, PlanModel::Rank), 4));
    QCOMPARE(refused.size(), 1);
    QVERIFY(refused.first().first().toString().contains(QStringLiteral("rank")));
    // In a multi-edit a row without the parameter is left alone.
    QVERIFY(model.setOnRows({0, 1}, PlanModel::Rank, 4));
    QCOMPARE(model.index(1, PlanModel::Rank).data().toString(), QStringLiteral("4"));
    QVERIFY(!model.setData(model.index(0, PlanModel::MethodColumn), QStringLiteral("magic")));
    QVERIFY(model.index(0, PlanModel::MethodColumn)
                .data(PlanModel::ChoiceIdsRole)
                .toStringList()
                .contains(QStringLiteral("odlri")));
}

void TestItemModels::plan_fills_down()
{
    Session session;
    PlanModel model(session);
    open(session);
    QVERIFY(model.setData(model.index(2, PlanModel::Bits), 4));
    QVERIFY(model.fillDown({4, 2, 3}, PlanModel::Bits));
    QCOMPARE(model.index(4, PlanModel::Bits).data().toString(), QStringLiteral("4"));
    QCOMPARE(model.index(5, PlanModel::Bits).data().toString(), QStringLiteral("2"));
    QVERIFY(!model.fillDown({2}, PlanModel::Bits));
    QVERIFY(!model.fillDown({2, 3}, PlanModel::Size));
}

void TestItemModels::plan_predicts_errors_from_spectra()
{
    Session session;
    PlanModel model(session);
    open(session);
    QCOMPARE(model.index(0, PlanModel::PredictedError).data().toString(), QStringLiteral("~"));
    auto spectrum = std::make_shared<LayerSpectrum>();
    spectrum->weight = VectorD::Constant(64, 1.0);
    spectrum->residual = VectorD::Constant(64, 0.1);
    spectrum->weight_norm = 8.0;
    const QString layer = model.layerAt(0);
    session.addSpectrum(session.spectrumKey(layer), spectrum);
    const double expected = std::sqrt(56.0 * 0.01) / 8.0; // rank 8 leaves 56 values of 0.1
    QCOMPARE(model.index(0, PlanModel::PredictedError).data().toString(), formatMeasured(expected, 3));
    // Other bits make another residual: the error is unknown again.
    QVERIFY(model.setData(model.index(0, PlanModel::Bits), 3));
    QCOMPARE(model.index(0, PlanModel::PredictedError).data().toString(), QStringLiteral("~"));
}

void TestItemModels::dragging_the_rank_is_one_undo_step()
{
    Session session;
    open(session);
    const QString layer = QStringLiteral("model.layers.1.mlp.up_proj");
    for (int rank = 9; rank <= 30; ++rank)
        QVERIFY(session.setRank(layer, rank));
    session.endRankDrag();
    QCOMPARE(session.rank(layer), std::optional(30));
    QCOMPARE(session.undoStack().count(), 1);
    QVERIFY(session.setRank(layer, 31));
    QCOMPARE(session.undoStack().count(), 2);
    session.undoStack().undo();
    QCOMPARE(session.rank(layer), std::optional(30));
    session.undoStack().undo();
    QCOMPARE(session.rank(layer), std::optional(8));
    QVERIFY(!session.setRank(layer, 65));
    QVERIFY(!session.setRank(QStringLiteral("no.such.layer"), 1));
}

void TestItemModels::presets_fit_every_layer()
{
    const auto presets = planPresets();
    QVERIFY(presets.size() >= 5);
    QVERIFY(std::any_of(presets.cbegin(), presets.cend(),
                        [](const PlanPreset& preset) { return preset.id == defaultPresetId(*sample()); }));
    for (const PlanPreset& preset : presets) {
        const auto plan = presetPlan(preset, *sample());
        QVERIFY2(plan.has_value(), qPrintable(preset.title));
        QCOMPARE(plan->rows.size(), std::size_t{35});
        const Status legal = plan->check(*sample());
        QVERIFY2(legal.has_value(), qPrintable(preset.title));
    }
}

void TestItemModels::selection_has_a_history()
{
    Session session;
    open(session);
    QSignalSpy changes(&session, &Session::selectionChanged);
    session.selectLayer(QStringLiteral("model.layers.0.mlp.up_proj"));
    session.selectChannel(7);
    session.selectLayer(QStringLiteral("model.layers.3.mlp.down_proj"));
    QCOMPARE(session.selection().channel, -1);
    session.selectTensor(QStringLiteral("model.norm.weight"));
    QVERIFY(session.selection().layer.isEmpty());
    session.goBack();
    QCOMPARE(session.selection().layer, QStringLiteral("model.layers.3.mlp.down_proj"));
    session.goBack();
    QCOMPARE(session.selection().layer, QStringLiteral("model.layers.0.mlp.up_proj"));
    QVERIFY(!session.canGoBack());
    session.goForward();
    QCOMPARE(session.selection().layer, QStringLiteral("model.layers.3.mlp.down_proj"));
    session.selectNeighbour(1);
    QCOMPARE(session.selection().layer, QStringLiteral("model.layers.4.self_attn.q_proj"));
    QVERIFY(!session.canGoForward());
    QVERIFY(changes.size() >= 7);
}

void TestItemModels::job_model_follows_the_runner()
{
    JobRunner runner;
    JobModel model(runner);
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    std::atomic<bool> go_on{false};
    const JobId id = runner.start<int>(
        {QStringLiteral("Compress 2 layers")}, this,
        [&](JobMonitor& monitor) -> Result<int> {
            monitor.setItems({QStringLiteral("a"), QStringLiteral("b")});
            monitor.setItemState("a", JobItem::State::Done, {});
            while (!go_on.load())
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            monitor.setItemState("c", JobItem::State::Failed, "it is torn");
            return internal_error("1 of 3 layers failed");
        },
        [](const Result<int>&) {});
    runner.start<int>(
        {QStringLiteral("hidden"), JobLane::View, false}, this, [](JobMonitor&) -> Result<int> { return 1; },
        [](const Result<int>&) {});
    QCOMPARE(model.rowCount(), 1);
    const QModelIndex job = model.indexOf(id);
    QTRY_COMPARE(model.rowCount(job), 2);
    QTRY_COMPARE(model.index(0, JobModel::Progress).data().toString(), QStringLiteral("50 %"));
    QCOMPARE(model.index(0, JobModel::State, job).data().toString(), QStringLiteral("done"));
    QCOMPARE(model.jobAt(model.index(1, 0, job)), id);
    go_on = true;
    QTRY_COMPARE(model.index(0, JobModel::State).data().toString(), QStringLiteral("failed"));
    QCOMPARE(model.rowCount(model.indexOf(id)), 3);
    QVERIFY(
        model.index(0, JobModel::Stage).data().toString().contains(QStringLiteral("1 of 3 layers failed")));
    runner.clearFinished();
    QCOMPARE(model.rowCount(), 0);
}

void TestItemModels::run_model_lists_finished_layers()
{
    Session session;
    open(session, QStringLiteral("rtn-4"));
    RunModel model(session);
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    QCOMPARE(model.rowCount(), 0);

    QTemporaryDir folder;
    Plan plan = session.plan();
    for (std::size_t i = 0; i < plan.rows.size(); ++i)
        plan.rows[i].include = i < 3;
    const auto backend = make_cpu_backend();
    const auto place = toPath(folder.filePath(QStringLiteral("run")));
    const Status done = Run::execute(sample(), plan, nullptr, place, {}, *backend, silent_monitor());
    QVERIFY2(done.has_value(), done ? "" : done.error().sentence().c_str());
    const auto run = Run::open(place);
    QVERIFY(run.has_value());
    session.setRun(*run);
    QCOMPARE(model.rowCount(), 3);
    QCOMPARE(model.rowOf(QStringLiteral("model.layers.0.self_attn.v_proj")), 2);
    QCOMPARE(model.rowOf(QStringLiteral("model.layers.4.mlp.up_proj")), -1);
    const double error = model.index(0, RunModel::WeightError).data(RunModel::SortRole).toDouble();
    QVERIFY(error > 0.0 && error < 0.5);
    QVERIFY(model.summary().contains(QStringLiteral("3 layers")));
    session.setRun(nullptr);
    QCOMPARE(model.rowCount(), 0);
    QVERIFY(model.summary().isEmpty());
}

void TestItemModels::numbers_are_short_and_plain()
{
    QCOMPARE(formatMeasured(std::numeric_limits<double>::quiet_NaN()), noValue());
    QCOMPARE(formatMeasured(0.123456), QStringLiteral("0.1235"));
    QCOMPARE(formatTimeLeft(-1.0), noValue());
    QCOMPARE(formatTimeLeft(0.2), QStringLiteral("1 s"));
    QCOMPARE(formatTimeLeft(41.0), QStringLiteral("40 s"));
    QCOMPARE(formatTimeLeft(361.0), QStringLiteral("6 min"));
    QCOMPARE(formatTimeLeft(7800.0), QStringLiteral("2 h 10 min"));
    QCOMPARE(formatElapsed(0.42), QStringLiteral("0.42 s"));
    QCOMPARE(formatElapsed(185.4), QStringLiteral("3:05"));
    PerplexityResult result;
    result.perplexity = 12.3456;
    QCOMPARE(perplexityText(result), QStringLiteral("12.35"));
    result.standard_error = 0.1234;
    QCOMPARE(perplexityText(result), QStringLiteral("12.35 ± 0.12"));
}

QTEST_MAIN(TestItemModels)
#include "test_item_models.moc"
