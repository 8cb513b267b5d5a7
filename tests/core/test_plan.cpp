// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/method.h"
#include "core/plan/layer_plan.h"
#include "tests/support/sample_run.h"

#include <QTemporaryDir>
#include <QtTest>

#include <limits>

using namespace rankscope;

class TestPlan : public QObject {
    Q_OBJECT

private slots:
    void initTestCase() { model_ = test::sample_model(); }
    void json_round_trip_data();
    void json_round_trip();
    void strict_reading_data();
    void strict_reading();
    void globs_data();
    void globs();
    void settings_round_trip_data() { json_round_trip_data(); }
    void settings_round_trip();
    void setting_changes_method();
    void bad_settings_data();
    void bad_settings();
    void default_ranks_fit();
    void explicit_rank_is_refused();
    void left_out_layers();
    void check_names_the_row();
    void planned_bits_are_exact_data();
    void planned_bits_are_exact();
    void size_of_plan();

private:
    Plan plan_of(std::string_view method) const
    {
        auto plan = uniform_plan(*model_, method, {}, 7);
        if (!plan)
            qFatal("%s", plan.error().sentence().c_str());
        return *plan;
    }
    std::shared_ptr<const Model> model_;
};

void TestPlan::json_round_trip_data()
{
    QTest::addColumn<QString>("method");
    for (const Method* method : methods())
        QTest::newRow(method->info().id.c_str()) << QString::fromStdString(method->info().id);
}

void TestPlan::json_round_trip()
{
    QFETCH(QString, method);
    Plan plan = plan_of(method.toStdString());
    plan.seed = std::numeric_limits<std::uint64_t>::max() - 1;
    plan.calibration_id = "abc";
    plan.rows[3].include = false;
    plan.rows[4].locked = true;
    const QTemporaryDir folder;
    const auto file = std::filesystem::path(folder.path().toStdString()) / "plan.json";
    const auto written = plan.write(file, false);
    QVERIFY2(written, written ? "" : written.error().sentence().c_str());
    const auto read = Plan::read(file);
    QVERIFY2(read, read ? "" : read.error().sentence().c_str());
    QVERIFY(*read == plan);
    QCOMPARE(read->to_json().dump(), plan.to_json().dump());
    const auto again = plan.write(file, false);
    QVERIFY(!again); // an existing file stays
    QCOMPARE(again.error().kind, ErrorKind::BadInput);
}

void TestPlan::strict_reading_data()
{
    QTest::addColumn<QString>("text");
    QTest::addColumn<QString>("expected"); // what the sentence must name
    const auto plan = [](const QString& rows, const QString& extra = {}) {
        return QString(
                   R"({"format":"rankscope.plan","version":1,"checkpoint_hash":"h","calibration_id":"","seed":0,%1"rows":[%2]})")
            .arg(extra, rows);
    };
    const QString good = R"({"layer":"a.b","method":"rtn","parameters":{"bits":4}})";
    QTest::newRow("not a plan") << R"({"rows":[]})"
                                << "no plan";
    QTest::newRow("a list") << "[]"
                            << "no plan";
    QTest::newRow("newer version") << QString(plan(good)).replace("\"version\":1", "\"version\":2")
                                   << "version 2";
    QTest::newRow("unknown key") << plan(good, R"("budgett":3,)") << "budgett";
    QTest::newRow("rows no list") << QString(plan("")).replace("[]", "3") << "rows";
    QTest::newRow("negative seed") << QString(plan(good)).replace("\"seed\":0", "\"seed\":-1") << "seed";
    QTest::newRow("unknown method") << plan(R"({"layer":"a.b","method":"rtm","parameters":{}})")
                                    << "row 1 (a.b)";
    QTest::newRow("unknown parameter")
        << plan(good + R"(,{"layer":"c","method":"rtn","parameters":{"bitz":4}})") << "row 2 (c)";
    QTest::newRow("out of range") << plan(R"({"layer":"a.b","method":"rtn","parameters":{"bits":1}})")
                                  << "a.b";
    QTest::newRow("group below -1") << plan(R"({"layer":"a.b","method":"rtn","parameters":{"group":-2}})")
                                    << "group";
    QTest::newRow("parameters no object")
        << plan(R"({"layer":"a.b","method":"rtn","parameters":[]})") << "a.b";
    QTest::newRow("duplicate row") << plan(good + "," + good) << "row 2 (a.b)";
    QTest::newRow("row without layer") << plan(R"({"method":"rtn","parameters":{}})") << "row 1";
    QTest::newRow("row is a number") << plan("3") << "row 1";
    QTest::newRow("unknown row key") << plan(R"({"layer":"a.b","method":"rtn","parameters":{},"rank":3})")
                                     << "\"rank\"";
    QTest::newRow("include as text") << plan(
        R"({"layer":"a.b","method":"rtn","parameters":{},"include":"yes"})")
                                     << "include";
}

void TestPlan::strict_reading()
{
    QFETCH(QString, text);
    QFETCH(QString, expected);
    const auto json = Json::parse(text.toStdString());
    QVERIFY2(json, json ? "" : json.error().sentence().c_str());
    const auto plan = Plan::from_json(*json);
    QVERIFY(!plan);
    QCOMPARE(plan.error().kind, ErrorKind::BadInput);
    const QString sentence = QString::fromStdString(plan.error().sentence());
    QVERIFY2(sentence.contains(expected), qPrintable(sentence));
}

void TestPlan::globs_data()
{
    QTest::addColumn<QString>("pattern");
    QTest::addColumn<QString>("name");
    QTest::addColumn<bool>("expected");
    QTest::newRow("equal") << "a.b"
                           << "a.b" << true;
    QTest::newRow("whole name") << "a.b"
                                << "a.bc" << false;
    QTest::newRow("star") << "*"
                          << "anything" << true;
    QTest::newRow("star and nothing") << "*"
                                      << "" << true;
    QTest::newRow("empty pattern") << ""
                                   << "a" << false;
    QTest::newRow("inner star") << "model.*.mlp.*"
                                << "model.layers.3.mlp.up_proj" << true;
    QTest::newRow("star must backtrack") << "*ab"
                                         << "aab.ab" << true;
    QTest::newRow("question mark") << "layers.?.x"
                                   << "layers.3.x" << true;
    QTest::newRow("question mark is one") << "layers.?.x"
                                          << "layers.12.x" << false;
    QTest::newRow("case") << "A*"
                          << "ab" << false;
    QTest::newRow("escaped star") << "a\\*b"
                                  << "a*b" << true;
    QTest::newRow("escaped star is no star") << "a\\*b"
                                             << "axb" << false;
    QTest::newRow("trailing backslash") << "a\\"
                                        << "a\\" << true;
    QTest::newRow("many stars end soon")
        << QString("*a").repeated(30) + "b" << QString("a").repeated(60) << false;
}

void TestPlan::globs()
{
    QFETCH(QString, pattern);
    QFETCH(QString, name);
    QFETCH(bool, expected);
    QCOMPARE(glob_match(pattern.toStdString(), name.toStdString()), expected);
    QCOMPARE(glob_match_any("nothing, " + pattern.toStdString(), name.toStdString()), expected);
}

void TestPlan::settings_round_trip()
{
    QFETCH(QString, method);
    Plan target = plan_of(method.toStdString());
    target.rows[0].layer = "odd:name,with*all?of\\them";
    target.rows[0].include = false;
    target.rows[1].locked = true;
    Plan plan = plan_of(method == "rtn" ? "odlri" : "rtn");
    plan.rows[0].layer = target.rows[0].layer;
    plan.rows[1].locked = false;
    for (const LayerPlan& row : target.rows) {
        const auto applied = apply_setting(plan, setting_text(row));
        QVERIFY2(applied, applied ? "" : applied.error().sentence().c_str());
    }
    QVERIFY(plan.rows == target.rows);
}

void TestPlan::setting_changes_method()
{
    Plan plan = plan_of("rtn");
    const auto given = apply_setting(plan, "*:bits=3,group=32");
    QVERIFY(given);
    const auto applied = apply_setting(plan, "*.down_proj:method=odlri,rank=16", model_.get());
    QVERIFY2(applied, applied ? "" : applied.error().sentence().c_str());
    for (const LayerPlan& row : plan.rows) {
        const bool chosen = glob_match("*.down_proj", row.layer);
        QCOMPARE(row.method, std::string(chosen ? "odlri" : "rtn"));
        QCOMPARE(row.parameters.integer("bits"), 3);
        QCOMPARE(row.parameters.integer("group"), 32);
        if (chosen)
            QCOMPARE(row.parameters.integer("rank"), 16);
    }
    // Ranks that come in by default fit each matrix.
    QVERIFY(apply_setting(plan, "*:method=caldera", model_.get()));
    QVERIFY(plan.check(*model_));
}

void TestPlan::bad_settings_data()
{
    QTest::addColumn<QString>("setting");
    for (const char* text :
         {"", "x", ":bits=3", "*:", "*:bits", "*:=3", "*:bits=3,bits=4", "*:bits=9", "*:bits=x", "*:rank=4",
          "*:method=nope", "*:include=perhaps", "nothing*:bits=3", "*:group=-2", "*:bits=3,rank=2"})
        QTest::newRow(text) << QString(text);
}

void TestPlan::bad_settings()
{
    QFETCH(QString, setting);
    Plan plan = plan_of("rtn");
    const Plan before = plan;
    const auto applied = apply_setting(plan, setting.toStdString());
    QVERIFY(!applied);
    QCOMPARE(applied.error().kind, ErrorKind::Usage);
    QVERIFY2(QString::fromStdString(applied.error().sentence()).contains(setting),
             applied.error().sentence().c_str());
    QVERIFY(plan == before); // all rows or none
}

void TestPlan::default_ranks_fit()
{
    const Plan plan = plan_of("odlri");
    QVERIFY(plan.check(*model_));
    for (const LayerPlan& row : plan.rows) {
        const LinearLayer* layer = model_->find_linear(row.layer);
        QCOMPARE(row.parameters.integer("rank"),
                 std::int64_t{std::min<Index>(64, std::min(layer->out, layer->in))});
    }
    QCOMPARE(plan.checkpoint_hash, model_->checkpoint().header_hash());
    QCOMPARE(plan.rows.size(), model_->linears().size());
}

void TestPlan::explicit_rank_is_refused()
{
    // The sample's key projections are 32 × 64: the first of them is named.
    const auto plan = uniform_plan(*model_, "caldera", {{"rank", std::int64_t{33}}}, 0);
    QVERIFY(!plan);
    QCOMPARE(plan.error().kind, ErrorKind::Usage);
    const QString sentence = QString::fromStdString(plan.error().sentence());
    QVERIFY2(sentence.contains("model.layers.0.self_attn.k_proj") && sentence.contains("33")
                 && sentence.contains("32 × 64"),
             qPrintable(sentence));
    QVERIFY(uniform_plan(*model_, "caldera", {{"rank", std::int64_t{33}}}, 0, "*.q_proj,*.mlp.*"));
    const auto outliers = uniform_plan(*model_, "odlri", {{"k", std::int64_t{65}}}, 0);
    QVERIFY(!outliers);
    QCOMPARE(outliers.error().kind, ErrorKind::Usage);
    const auto group = uniform_plan(*model_, "rtn", {{"group", std::int64_t{-2}}}, 0);
    QVERIFY(!group);
    QCOMPARE(group.error().kind, ErrorKind::Usage);
    for (const std::int64_t legal : {-1, 0, 1, 48, 4096})
        QVERIFY(uniform_plan(*model_, "rtn", {{"group", legal}}, 0));
    QVERIFY(!uniform_plan(*model_, "nope", {}, 0));
    QVERIFY(!uniform_plan(*model_, "rtn", {{"rank", std::int64_t{3}}}, 0));
}

void TestPlan::left_out_layers()
{
    const auto plan = uniform_plan(*model_, "rtn", {}, 0, "*.1.*,*q_proj");
    QVERIFY(plan);
    int included = 0;
    for (const LayerPlan& row : plan->rows)
        included += row.include ? 1 : 0;
    QCOMPARE(included, 7 + 4);
    QVERIFY(!uniform_plan(*model_, "rtn", {}, 0, "nothing"));
}

void TestPlan::check_names_the_row()
{
    Plan plan = plan_of("caldera");
    plan.rows[5].layer = "model.layers.9.mlp.up_proj";
    auto checked = plan.check(*model_);
    QVERIFY(!checked);
    QVERIFY(checked.error().sentence().find("model.layers.9.mlp.up_proj") != std::string::npos);
    plan = plan_of("caldera");
    QVERIFY(apply_setting(plan, "model.layers.2.self_attn.v_proj:rank=50"));
    checked = plan.check(*model_);
    QVERIFY(!checked);
    QVERIFY(checked.error().sentence().find("model.layers.2.self_attn.v_proj") != std::string::npos);
    QVERIFY(apply_setting(plan, "*.v_proj:include=false"));
    QVERIFY(plan.check(*model_)); // a row that is left out may say what it likes
    plan.rows.push_back(plan.rows[0]);
    QVERIFY(!plan.check(*model_));
}

void TestPlan::planned_bits_are_exact_data()
{
    QTest::addColumn<QString>("method");
    QTest::addColumn<QString>("setting");
    QTest::newRow("rtn, last group shorter") << "rtn"
                                             << "bits=2,group=64";
    QTest::newRow("rtn, a group a channel") << "rtn"
                                            << "bits=3,group=0";
    QTest::newRow("rtn, one group") << "rtn"
                                    << "bits=8,group=-1";
    QTest::newRow("rtn, symmetric") << "rtn"
                                    << "bits=4,group=48,symmetric=true";
    QTest::newRow("gptq, group beyond the width") << "gptq"
                                                  << "bits=4,group=128";
    QTest::newRow("svd_residual") << "svd_residual"
                                  << "bits=2,group=64,rank=8";
    QTest::newRow("svd_residual without rank") << "svd_residual"
                                               << "bits=2,group=64,rank=0";
    QTest::newRow("caldera, full rank") << "caldera"
                                        << "bits=2,group=-1,rank=64,iterations=1";
    QTest::newRow("odlri") << "odlri"
                           << "bits=2,group=32,rank=5,iterations=1";
}

void TestPlan::planned_bits_are_exact()
{
    QFETCH(QString, method);
    QFETCH(QString, setting);
    Plan plan = plan_of(method.toStdString());
    QVERIFY(apply_setting(plan, "*:" + setting.toStdString()));
    const auto backend = make_cpu_backend();
    for (const char* name : {"model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"}) {
        const LinearLayer* layer = model_->find_linear(name);
        const LayerPlan* row = plan.find(name);
        const auto weight = model_->checkpoint().read(layer->weight());
        QVERIFY(weight);
        Moments moments;
        moments.tokens = 1;
        moments.hessian = MatrixD::Identity(layer->in, layer->in);
        moments.mean_abs = VectorD::Ones(layer->in);
        moments.max_abs = VectorD::Ones(layer->in);
        LayerProblem problem;
        problem.weight = backend->upload(*weight);
        problem.moments = &moments;
        problem.name = name;
        const auto result =
            find_method(row->method)->decompose(problem, row->parameters, *backend, silent_monitor());
        QVERIFY2(result, result ? "" : result.error().sentence().c_str());
        QCOMPARE(planned_bits_per_weight(*row, *layer),
                 result->bits_per_weight()); // the same double, not a near one
    }
}

void TestPlan::size_of_plan()
{
    Plan plan = plan_of("rtn");
    QVERIFY(apply_setting(plan, "*:bits=4,group=0,symmetric=true"));
    QVERIFY(apply_setting(plan, "*:include=false"));
    QVERIFY(apply_setting(plan, "model.layers.0.mlp.down_proj:include=true"));
    const PlanSize size = planned_size(plan, *model_);
    QCOMPARE(size.original_bytes, std::uint64_t{64 * 172 * 4});
    QCOMPARE(size.planned_bytes, std::uint64_t{64 * 172 / 2 + 64 * 2});
    QCOMPARE(size.bits_per_weight, 4.0 + 16.0 / 172.0);
    QVERIFY(apply_setting(plan, "*:include=false"));
    QCOMPARE(planned_size(plan, *model_).planned_bytes, std::uint64_t{0});
    QCOMPARE(planned_size(plan, *model_).bits_per_weight, 0.0);
}

QTEST_GUILESS_MAIN(TestPlan)
#include "test_plan.moc"
