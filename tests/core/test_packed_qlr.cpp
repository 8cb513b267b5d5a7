// SPDX-License-Identifier: GPL-3.0-or-later
// Our own hf-qlr exports, opened again as models.
#include "core/base/atomic_file.h"
#include "core/evaluate/weight_comparison.h"
#include "core/export/detail/qlr_layer.h"
#include "core/export/exporter.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"

#include <QTemporaryDir>
#include <QTest>

#include <functional>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;
using Edit = std::function<void(Json& schema, Json& layer)>;

constexpr char k_layer[] = "model.layers.1.mlp.up_proj";

} // namespace

Q_DECLARE_METATYPE(Edit)

class TestPackedQlr : public QObject {
    Q_OBJECT

    QTemporaryDir place_;
    fs::path folder_;
    std::shared_ptr<const Model> sample_ = test::sample_model();
    std::shared_ptr<const Run> run_;

    /// Runs and exports the sample; returns the export's folder.
    void export_sample(const char* name, const char* method, const Given& parameters)
    {
        folder_ = fs::path(place_.path().toStdString()) / name;
        auto run = test::make_sample_run(sample_, folder_, method, parameters);
        QVERIFY2(run, run ? "" : run.error().sentence().c_str());
        run_ = *run;
        const auto written =
            (*require_exporter("hf-qlr"))
                ->write(*run_, *sample_, folder_ / "export", ExportOptions{}, silent_monitor());
        QVERIFY2(written, written ? "" : written.error().sentence().c_str());
    }

private Q_SLOTS:
    void initTestCase()
    {
        export_sample("main", "lqer",
                      {{"bits", std::int64_t{3}},
                       {"group", std::int64_t{48}},
                       {"rank", std::int64_t{4}},
                       {"symmetric", false}});
    }

    void every_layer_is_the_runs_bit_for_bit_data()
    {
        QTest::addColumn<QByteArray>("method");
        QTest::addColumn<int>("bits");
        QTest::addColumn<int>("group");
        QTest::addColumn<bool>("symmetric");
        QTest::addColumn<QByteArray>("type");
        QTest::newRow("zero points and factors")
            << QByteArray("lqer") << 3 << 48 << false << QByteArray("qlr int3 g48 + rank 4");
        QTest::newRow("codes alone") << QByteArray("rtn") << 2 << 32 << true << QByteArray("qlr int2 g32");
        QTest::newRow("whole rows") << QByteArray("rtn") << 8 << 0 << false << QByteArray("qlr int8 channel");
    }
    void every_layer_is_the_runs_bit_for_bit()
    {
        QFETCH(QByteArray, method);
        QFETCH(int, bits);
        QFETCH(int, group);
        QFETCH(bool, symmetric);
        QFETCH(QByteArray, type);
        Given given = {
            {"bits", std::int64_t{bits}}, {"group", std::int64_t{group}}, {"symmetric", symmetric}};
        if (method == "lqer")
            given["rank"] = std::int64_t{4};
        const fs::path before = folder_;
        const auto run_before = run_;
        export_sample(QTest::currentDataTag(), method, given);
        const auto model = Model::open(folder_ / "export");
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        for (const LinearLayer& layer : (*model)->linears()) {
            const auto decomposition = run_->decomposition(layer.name);
            QVERIFY(decomposition);
            const auto packed = pack_layer(*decomposition, layer);
            QVERIFY(packed);
            const auto weight = (*model)->weight(layer);
            QVERIFY2(weight, weight ? "" : weight.error().sentence().c_str());
            QVERIFY(*weight == rounded_to_stored(*decomposition, *packed).reconstruct());
            const TensorInfo* info = (*model)->checkpoint().find(layer.weight());
            QCOMPARE(QByteArray::fromStdString(std::string(info->type_name())), type);
            QCOMPARE(info->bytes, packed->bytes());
        }
        folder_ = before;
        run_ = run_before;
    }

    void it_evaluates_like_the_run_and_compares_with_the_original()
    {
        const auto model = Model::open(folder_ / "export");
        QVERIFY(model);
        const auto backend = make_cpu_backend();
        const std::vector<TokenId> ids = {1, 5, 9, 30, 2, 17};
        const auto packed = logits(**model, *checkpoint_weights(*model), ids, *backend, silent_monitor());
        const auto ran = logits(*sample_, *run_weights(sample_, run_), ids, *backend, silent_monitor());
        QVERIFY(packed && ran);
        QVERIFY((*packed - *ran).cwiseAbs().maxCoeff()
                < 2e-2F * ran->cwiseAbs().maxCoeff()); // factors rounded to F16

        const auto compared = compare_weights(*sample_, **model, silent_monitor());
        QVERIFY(compared);
        QCOMPARE(compared->layers.size(), sample_->linears().size());
        for (const LayerResult& result : run_->results()) {
            const auto found =
                std::find_if(compared->layers.begin(), compared->layers.end(),
                             [&](const LayerDifference& layer) { return layer.layer == result.layer; });
            QVERIFY(found != compared->layers.end());
            QVERIFY(std::abs(found->relative_error - result.quality.relative_error) < 1e-3);
            QVERIFY(std::abs(found->bits_per_weight - result.bits_per_weight) < 1.0); // rows end at words
        }
        QVERIFY(compared->relative_error > 0.0 && compared->relative_error < 1.0);
        const auto same = compare_weights(*sample_, *sample_, silent_monitor());
        QVERIFY(same && same->relative_error == 0.0 && same->layers.front().max_difference == 0.0);
        test::TestMonitor cancelled(2);
        const auto stopped = compare_weights(*sample_, **model, cancelled);
        QVERIFY(!stopped && stopped.error().kind == ErrorKind::Cancelled);
    }

    void compressing_it_again_says_that_it_requantizes()
    {
        const auto model = Model::open(folder_ / "export");
        QVERIFY(model);
        const auto plan = uniform_plan(**model, "rtn", {{"bits", std::int64_t{4}}}, 0);
        QVERIFY(plan);
        const auto backend = make_cpu_backend();
        test::TestMonitor monitor;
        const auto done = Run::execute(*model, *plan, nullptr, folder_ / "again", {}, *backend, monitor);
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
        QCOMPARE(monitor.warnings().size(), std::size_t{1});
        QVERIFY(monitor.warnings().front().find("are quantized already (qlr int3 g48 + rank 4)")
                != std::string::npos);
        const auto again = Run::open(folder_ / "again");
        QVERIFY(again);
        for (const char* format :
             {"hf", "hf-qlr"}) { // dense tensors and packed ones cannot be copied side by side
            const auto refused = (*require_exporter(format))->accepts(**again, **model);
            QVERIFY(!refused);
            QVERIFY(refused.error().sentence().find("qlr int3 g48") != std::string::npos);
        }
    }

    void hostile_schemas_data()
    {
        QTest::addColumn<Edit>("edit");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* name, const Edit& edit, const char* says) {
            QTest::newRow(name) << edit << QByteArray(says);
        };
        const auto says = [](const char* key, const Json& value) {
            return [=](Json&, Json& layer) { layer.set(key, value); };
        };
        row(
            "another format", [](Json& schema, Json&) { schema.set("format", "gguf"); },
            "no rankscope-qlr export");
        row(
            "another version", [](Json& schema, Json&) { schema.set("version", 2); },
            "no rankscope-qlr export");
        row(
            "no layers", [](Json& schema, Json&) { schema.set("layers", Json::Array{}); },
            "\"layers\" is missing");
        row(
            "layer is a number", [](Json&, Json& layer) { layer = 3; }, "\"shape\" is missing");
        row("shape is missing", says("shape", Json()), "\"shape\" is missing");
        row("shape of three sides", says("shape", Json::Array{1, 2, 3}), "\"shape\" is missing or no pair");
        row("negative side", says("shape", Json::Array{-1, 5}), "out of range");
        row("endless side", says("shape", Json::Array{1, std::int64_t{1} << 62}), "out of range");
        row("too many weights", says("shape", Json::Array{1 << 20, 1 << 20}), "out of range");
        row("other shape", says("shape", Json::Array{171, 64}), "expected I32 [171, 6]");
        row("bits are missing", says("bits", Json()), "0 to 8");
        row("bits of 9", says("bits", 9), "0 to 8");
        row("bits lie", says("bits", 4), "expected I32");
        row("codes are denied", says("bits", 0), ".qlr_codes");
        row("rank is missing", says("rank", Json()), "\"rank\" is missing");
        row("negative rank", says("rank", -1), "\"rank\" is missing");
        row("rank beyond the layer", says("rank", 100'000), "larger than the layer");
        row("rank lies", says("rank", 5), "expected F16 or F32");
        row("group of 0", says("group_width", 0), "\"group_width\" must be");
        row("group beyond the row", says("group_width", 100'000), "\"group_width\" must be");
        row("group lies", says("group_width", 24), "expected F16 or F32");
        row("symmetry is missing", says("symmetric", Json()), "true or false");
        row(
            "neither codes nor factors",
            [](Json&, Json& layer) {
                layer.set("bits", 0);
                layer.set("rank", 0);
            },
            "neither codes nor factors");
    }
    void hostile_schemas()
    {
        QFETCH(Edit, edit);
        QFETCH(QByteArray, says);
        const fs::path file = folder_ / "export" / "rankscope_qlr.json";
        const auto original = read_text_file(file);
        QVERIFY(original);
        Json schema = *Json::parse(*original);
        Json layers = schema["layers"];
        Json layer = layers[k_layer];
        edit(schema, layer);
        if (schema["layers"].is_object()) {
            layers.set(k_layer, layer);
            schema.set("layers", layers);
        }
        QVERIFY(write_text_file(file, schema.dump(), true));
        const auto model = Model::open(folder_ / "export");
        QVERIFY(write_text_file(file, *original, true));
        QVERIFY(!model);
        const auto sentence = QByteArray::fromStdString(model.error().sentence());
        QVERIFY2(model.error().kind == ErrorKind::BadInput, sentence);
        QVERIFY2(sentence.contains(says), sentence);
        QVERIFY2(sentence.contains("rankscope_qlr.json") || sentence.contains(k_layer), sentence);
    }

    void a_schema_that_is_gone_or_no_json()
    {
        const fs::path file = folder_ / "export" / "rankscope_qlr.json";
        const auto original = read_text_file(file);
        QVERIFY(original && write_text_file(file, "{", true));
        QVERIFY(Model::open(folder_ / "export").error().kind == ErrorKind::BadInput);
        fs::remove(file);
        QVERIFY(Model::open(folder_ / "export").error().kind == ErrorKind::Io);
        QVERIFY(write_text_file(file, *original, false));
        QVERIFY(Model::open(folder_ / "export"));
    }
};

QTEST_GUILESS_MAIN(TestPackedQlr)
#include "test_packed_qlr.moc"
