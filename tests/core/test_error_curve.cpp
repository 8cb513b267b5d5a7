// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/error_curve.h"

#include "core/plan/plan_budget.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_run.h"

#include <QTemporaryDir>
#include <QtTest>

#include <atomic>
#include <cmath>
#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// Asks to stop after so many layers.
class StopAfter : public Monitor {
public:
    explicit StopAfter(std::uint64_t layers) : left_(layers) {}
    void report(std::uint64_t done, std::uint64_t, std::string_view) override
    {
        stop_ = stop_ || done >= left_;
    }
    bool cancelled() const override { return stop_; }

private:
    std::uint64_t left_;
    std::atomic<bool> stop_ = false;
};

Parameters parameters_of(const MethodInfo& info, std::int64_t rank)
{
    std::map<std::string, ParameterValue, std::less<>> given;
    if (info.find("rank"))
        given.emplace("rank", rank);
    if (info.find("bits"))
        given.emplace("bits", std::int64_t{2});
    if (info.find("group"))
        given.emplace("group", std::int64_t{16});
    return *Parameters::make(info, given);
}

} // namespace

class TestErrorCurve : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<const CalibrationStore> calibration_;
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    fs::path path(const char* name) const { return folder_.filePath(name).toStdString(); }

    CurveSource source(CurveStore& store, Monitor& monitor = silent_monitor())
    {
        return {*model_, calibration_.get(), store, *backend_, monitor};
    }

    Plan plan_of(std::string_view method, const std::string& layers = "*.layers.1.*")
    {
        std::map<std::string, ParameterValue, std::less<>> given{{"group", std::int64_t{32}}};
        auto plan = uniform_plan(*model_, method, given, 0, layers);
        if (!plan)
            qFatal("%s", plan.error().sentence().c_str());
        return *plan;
    }

private slots:
    void initTestCase()
    {
        model_ = test::sample_model();
        calibration_ = test::small_calibration(path("cal"));
        QVERIFY(calibration_);
    }

    void one_decomposition_gives_every_rank_data()
    {
        QTest::addColumn<QString>("method");
        for (const Method* method : methods()) {
            if (ranks_are_nested(method->info()))
                QTest::newRow(method->info().id.c_str()) << QString::fromStdString(method->info().id);
        }
    }

    void one_decomposition_gives_every_rank()
    {
        QFETCH(QString, method);
        const Method& used = *find_method(method.toStdString());
        for (const auto& shape : {test::SampleShape{24, 40, 200, 3}, test::SampleShape{33, 17, 90, 2}}) {
            const test::SampleLayer layer = test::sample_layer(shape, 5);
            const auto made = [&](Index rank) {
                LayerProblem problem;
                problem.weight = backend_->upload(layer.weight);
                problem.moments = &layer.moments;
                problem.name = "layer";
                return used.decompose(problem, parameters_of(used.info(), rank), *backend_, silent_monitor());
            };
            const Index highest = std::min(shape.out, shape.in);
            const auto whole = made(highest);
            QVERIFY(whole.has_value());
            const auto errors = truncated_errors(layer.weight, *whole, &layer.moments, *backend_);
            QCOMPARE(Index(errors.size()), highest + 1);
            for (const Index rank : {Index{0}, Index{1}, Index{5}, Index{12}, highest - 1}) {
                const auto alone = made(rank);
                QVERIFY(alone.has_value());
                const double error = measure(layer.weight, *alone, &layer.moments).relative_activation_error;
                const double predicted = std::sqrt(errors[static_cast<std::size_t>(rank)]);
                QVERIFY2(std::abs(predicted - error) < 1e-5 + 1e-4 * error,
                         qPrintable(QString("rank %1: %2, alone %3").arg(rank).arg(predicted).arg(error)));
            }
        }
    }

    void between_points_the_logarithm_is_linear()
    {
        ErrorCurve curve;
        curve.points = {{0, 0.16}, {16, 0.04}, {32, 0.05}, {64, 0.01}};
        QCOMPARE(curve.error_at(0), 0.16);
        QVERIFY(std::abs(curve.error_at(8) - 0.08) < 1e-15);
        QCOMPARE(curve.error_at(16), 0.04);
        QCOMPARE(curve.error_at(32), 0.04); // never above what a lower rank reaches
        QVERIFY(std::abs(curve.error_at(48) - 0.02) < 1e-15);
        QCOMPARE(curve.error_at(1000), 0.01);
        curve.points = {{4, 0.5}, {8, 0.0}};
        QCOMPARE(curve.error_at(0), 0.5);
        QCOMPARE(curve.error_at(6), 0.25);
        QCOMPARE(curve.error_at(9), 0.0);
    }

    void ranks_to_measure_double()
    {
        QCOMPARE(measured_ranks(16, 256), (std::vector<Index>{0, 16, 32, 64, 128, 256}));
        QCOMPARE(measured_ranks(16, 100), (std::vector<Index>{0, 16, 32, 64, 100}));
        QCOMPARE(measured_ranks(16, 7), (std::vector<Index>{0, 7}));
        QCOMPARE(measured_ranks(1, 0), (std::vector<Index>{0}));
    }

    void curves_are_measured_once()
    {
        const Plan plan = plan_of("qera_exact");
        std::vector<CurveRequest> requests;
        for (const LayerPlan& row : plan.rows) {
            if (row.include)
                requests.push_back({row, {32}});
        }
        auto store = CurveStore::open(path("curves.json"));
        QVERIFY(store.has_value());
        const auto first = measure_curves(source(*store), 0, requests);
        QVERIFY2(first.has_value(), first ? "" : first.error().sentence().c_str());
        QCOMPARE(store->size(), requests.size());
        auto kept = CurveStore::open(path("curves.json"));
        QVERIFY(kept.has_value());
        QCOMPARE(kept->size(), requests.size());
        const auto second = measure_curves(source(*kept), 0, requests);
        QVERIFY(second.has_value());
        for (std::size_t i = 0; i < requests.size(); ++i)
            QVERIFY((*first)[i].points == (*second)[i].points && (*first)[i].points.size() == 33);
        // What the file says is taken: nothing is measured again.
        auto json = Json::read(path("curves.json"));
        QVERIFY(json.has_value());
        Json::Array curves = *(*json)["curves"].array_if();
        for (Json& curve : curves) {
            Json::Array errors(33, Json(0.125));
            curve.set("errors", std::move(errors));
        }
        json->set("curves", std::move(curves));
        std::ofstream(path("marked.json")) << json->dump();
        auto marked = CurveStore::open(path("marked.json"));
        QVERIFY(marked.has_value());
        const auto third = measure_curves(source(*marked), 0, requests);
        QVERIFY(third.has_value());
        for (const ErrorCurve& curve : *third)
            QCOMPARE(curve.error_at(3), 0.125);
        // Another seed: other curves.
        QVERIFY(measure_curves(source(*kept), 1, std::span(requests).first(1)).has_value());
        QCOMPARE(kept->size(), requests.size() + 1);
        CurveSource without{*model_, nullptr, *kept, *backend_, silent_monitor()};
        const auto refused = measure_curves(without, 0, requests);
        QVERIFY(!refused.has_value());
        QCOMPARE(refused.error().kind, ErrorKind::Usage);
    }

    void what_was_measured_before_a_stop_is_kept()
    {
        const Plan plan = plan_of("rtn", "");
        std::vector<CurveRequest> requests;
        for (const LayerPlan& row : plan.rows)
            requests.push_back({row, {0}});
        auto store = CurveStore::open(path("stopped.json"));
        StopAfter monitor(3);
        QVERIFY_EXCEPTION_THROWN((void)measure_curves(source(*store, monitor), 0, requests), Cancelled);
        const auto kept = CurveStore::open(path("stopped.json"));
        QVERIFY(kept.has_value());
        QVERIFY(kept->size() >= 3 && kept->size() < requests.size());
    }

    void damaged_files_are_refused_data()
    {
        QTest::addColumn<QByteArray>("text");
        QTest::newRow("empty") << QByteArray();
        QTest::newRow("something else") << QByteArray(R"({"format": "rankscope.plan", "version": 1})");
        QTest::newRow("other version")
            << QByteArray(R"({"format":"rankscope.curves","version":9,"curves":[]})");
        for (const char* curve : {R"({})", R"({"key":"a","squared_norm":1,"ranks":[0],"errors":[]})",
                                  R"({"key":"a","squared_norm":-1,"ranks":[0],"errors":[1]})",
                                  R"({"key":"a","squared_norm":1,"ranks":[-1],"errors":[1]})",
                                  R"({"key":"a","squared_norm":1,"ranks":[0,0],"errors":[1,1]})",
                                  R"({"key":"a","squared_norm":1,"ranks":[0],"errors":["x"]})"})
            QTest::newRow(curve) << QByteArray(R"({"format":"rankscope.curves","version":1,"curves":[)")
                                        + curve + "]}";
    }

    void damaged_files_are_refused()
    {
        QFETCH(QByteArray, text);
        std::ofstream(path("damaged.json")) << text.toStdString();
        const auto store = CurveStore::open(path("damaged.json"));
        QVERIFY(!store.has_value());
        QCOMPARE(store.error().kind, ErrorKind::BadInput);
        QVERIFY(store.error().sentence().find("damaged.json") != std::string::npos);
    }

    void budgets_data()
    {
        QTest::addColumn<QString>("text");
        QTest::addColumn<double>("bits");
        QTest::addColumn<qulonglong>("bytes");
        QTest::newRow("bits") << "2.6bpw" << 2.6 << 0ULL;
        QTest::newRow("size") << "60MB" << 0.0 << 60000000ULL;
        for (const char* wrong : {"", "bpw", "0bpw", "-1bpw", "nanbpw", "1e9bpw", "2.6 bpw", "much"})
            QTest::newRow(wrong) << QString(wrong) << -1.0 << 0ULL;
    }

    void budgets()
    {
        QFETCH(QString, text);
        QFETCH(double, bits);
        QFETCH(qulonglong, bytes);
        const auto budget = parse_budget(text.toStdString());
        QCOMPARE(budget.has_value(), bits >= 0.0);
        if (!budget) {
            QCOMPARE(budget.error().kind, ErrorKind::Usage);
            return;
        }
        QCOMPARE(budget->bits_per_weight, bits);
        QCOMPARE(qulonglong(budget->bytes), bytes);
    }

    void a_budget_beats_one_rank_for_all()
    {
        Plan uniform = plan_of("qera_exact", "");
        QVERIFY(apply_setting(uniform, "*:bits=2,rank=8").has_value());
        const std::uint64_t bytes = planned_size(uniform, *model_).planned_bytes;
        BudgetChoices choices;
        choices.rank_step = 1;
        auto store = CurveStore::open({});
        double before = 0.0;
        for (const std::vector<std::int64_t>& bits : {std::vector<std::int64_t>{2}, {2, 3, 4}}) {
            choices.bits = bits;
            const auto fitted = fit_plan_to_budget(uniform, {0.0, bytes}, choices, source(*store));
            QVERIFY2(fitted.has_value(), fitted ? "" : fitted.error().sentence().c_str());
            QVERIFY(fitted->plan.check(*model_).has_value());
            QCOMPARE(planned_size(fitted->plan, *model_).planned_bytes, fitted->allocation.bytes);
            QVERIFY(fitted->allocation.bytes <= bytes && fitted->allocation.proven);
            QVERIFY(before == 0.0 || fitted->allocation.error <= before);
            before = fitted->allocation.error;
        }
        // The uniform plan's own prediction, from the same curves.
        choices.bits = {2};
        for (const LayerPlan& row : uniform.rows)
            choices.fixed_ranks.insert(row.layer);
        const auto same = fit_plan_to_budget(uniform, {0.0, bytes}, choices, source(*store));
        QVERIFY(same.has_value());
        QVERIFY(same->plan == uniform);
        QVERIFY(before < same->allocation.error);
    }

    void pinned_rows_stay()
    {
        Plan plan = plan_of("odlri", "*.layers.0.self_attn.*");
        QVERIFY(apply_setting(plan, "*:iterations=1,bits=2,rank=8").has_value());
        QVERIFY(apply_setting(plan, "*q_proj:locked=true,bits=4,rank=3").has_value());
        BudgetChoices choices;
        choices.rank_step = 4;
        choices.highest_rank = 16;
        choices.fixed_ranks.insert("model.layers.0.self_attn.k_proj");
        choices.fixed_bits.insert("model.layers.0.self_attn.v_proj");
        auto store = CurveStore::open({});
        const auto fitted = fit_plan_to_budget(plan, {5.5, 0}, choices, source(*store));
        QVERIFY2(fitted.has_value(), fitted ? "" : fitted.error().sentence().c_str());
        QCOMPARE(fitted->rows.size(), std::size_t{4});
        const auto row = [&](const char* name) {
            return *fitted->plan.find(std::string("model.layers.0.self_attn.") + name);
        };
        QVERIFY(row("q_proj") == *plan.find("model.layers.0.self_attn.q_proj"));
        QCOMPARE(row("k_proj").parameters.integer("rank"), std::int64_t{8});
        QCOMPARE(row("v_proj").parameters.integer("bits"), std::int64_t{2});
        QVERIFY(row("o_proj").parameters.integer("rank") % 4 == 0);
        for (const RowPrediction& prediction : fitted->rows) {
            const auto rank = fitted->plan.find(prediction.layer)->parameters.integer("rank");
            QCOMPARE(prediction.interpolated, rank == 12); // measured: 0, 4, 8, 16, and what is pinned
        }
        const auto refused = fit_plan_to_budget(plan, {0.0, 100}, choices, source(*store));
        QVERIFY(!refused.has_value());
        QCOMPARE(refused.error().kind, ErrorKind::Usage);
    }
};

QTEST_GUILESS_MAIN(TestErrorCurve)
#include "test_error_curve.moc"
