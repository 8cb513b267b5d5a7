// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <fstream>

using namespace rankscope;
using test::text_of;
namespace fs = std::filesystem;

class TestExportPeft : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void base_and_adapter_make_the_run();
    void rank_patterns_name_the_exceptions();
    void conv1d_is_said();
    void rotated_lattice_layers_are_turned_back();
    void nothing_to_adapt_is_refused();
    void experts_are_refused();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write_and_check(const Run& run, const Model& model) const
    {
        const Exporter& exporter = **require_exporter("peft");
        if (auto written = exporter.write(run, model, file("out"), {}, silent_monitor()); !written)
            return written;
        return exporter.check(run, model, file("out"), silent_monitor());
    }
    Json config() const { return *Json::read(file("out") / "adapter" / "adapter_config.json"); }

    test::SampleRuns runs_;
    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExportPeft::base_and_adapter_make_the_run()
{
    const auto run = runs_.ragged();
    const Status done = write_and_check(*run, *runs_.model());
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto base = CheckpointReader::open(file("out"));
    const auto adapter = CheckpointReader::open(file("out") / "adapter" / "adapter_model.safetensors");
    QVERIFY(base && adapter);
    QCOMPARE((*adapter)->tensors().size(), std::size_t{70});
    for (const LinearLayer& layer : runs_.model()->linears()) {
        const std::string module = "base_model.model." + layer.name;
        const auto q = (*base)->read(layer.weight());
        const auto a = (*adapter)->read(module + ".lora_A.weight");
        const auto b = (*adapter)->read(module + ".lora_B.weight");
        QVERIFY(q && a && b);
        QCOMPARE(a->rows(), Index{4});
        const Matrix expected = run->decomposition(layer.name)->reconstruct();
        const Matrix whole = *q + *b * *a;
        QVERIFY2((whole - expected).norm() < 1e-3F * expected.norm(), layer.name.c_str());
        QVERIFY((*q - expected).norm() > 2e-3F * expected.norm()); // L·R is not in the base
    }
    const Json json = config();
    QCOMPARE(json["peft_type"].string(), std::string("LORA"));
    QCOMPARE(json["r"].integer(), std::int64_t{4});
    QCOMPARE(json["lora_alpha"].integer(), std::int64_t{4});
    QCOMPARE(json["fan_in_fan_out"].boolean(true), false);
    QVERIFY(json["rank_pattern"].object_if()->empty());
    QCOMPARE(json["target_modules"].array_if()->size(), std::size_t{35});
}

void TestExportPeft::rank_patterns_name_the_exceptions()
{
    const auto run = test::quick_run(runs_.model(), file("run"), "svd_residual",
                                     {{"bits", std::int64_t{4}}, {"rank", std::int64_t{8}}},
                                     {"*.k_proj:rank=0", "*.2.mlp.up_proj:rank=3", "*.4.*:include=false"});
    const Status done = write_and_check(*run, *runs_.model());
    QVERIFY2(done, qPrintable(text_of(done)));
    const Json json = config();
    QCOMPARE(json["r"].integer(), std::int64_t{8});
    const Json pattern = Json::Object{{"model.layers.2.mlp.up_proj", Json(3)}};
    QVERIFY(json["rank_pattern"] == pattern && json["alpha_pattern"] == pattern);
    QCOMPARE(json["target_modules"].array_if()->size(), std::size_t{4 * 6}); // no k_proj, no layer 4
    // A scale that was changed behind our back is found.
    Json wrong = json;
    wrong.set("lora_alpha", 16);
    std::ofstream(file("out") / "adapter" / "adapter_config.json") << wrong.dump();
    const Status checked =
        (*require_exporter("peft"))->check(*run, *runs_.model(), file("out"), silent_monitor());
    QVERIFY(!checked && text_of(checked).contains("adapter_config.json"));
}

void TestExportPeft::conv1d_is_said()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    for (const char* name : {"gpt2", "gpt2-hub-names"}) {
        const auto model = Model::open(*shared / "models" / "tiny-arch" / name);
        QVERIFY(model);
        init();
        const auto run = test::quick_run(*model, file("run"), "svd_residual", {{"rank", std::int64_t{4}}});
        const Status done = write_and_check(*run, **model);
        QVERIFY2(done, qPrintable(text_of(done)));
        QCOMPARE(config()["fan_in_fan_out"].boolean(), true);
        const auto adapter = CheckpointReader::open(file("out") / "adapter" / "adapter_model.safetensors");
        QVERIFY(adapter);
        // transformers' modules have the prefix that the hub's files leave out.
        const LinearLayer& layer = (*model)->linears().front();
        const TensorInfo* a = (*adapter)->find("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight");
        QVERIFY(a);
        QCOMPARE(a->shape, (Shape{4, layer.in}));
    }
}

void TestExportPeft::rotated_lattice_layers_are_turned_back()
{
    const auto run = test::make_sample_run(runs_.model(), file("work"), "caldera",
                                           {{"codebook", std::string("e8p")},
                                            {"bits", std::int64_t{2}},
                                            {"rank", std::int64_t{4}},
                                            {"factor_bits", std::string("4")},
                                            {"iterations", std::int64_t{1}}});
    QVERIFY2(run, qPrintable(run ? QString() : QString::fromStdString(run.error().sentence())));
    const std::string layer = "model.layers.1.mlp.down_proj";
    const auto decomposition = (*run)->decomposition(layer);
    QVERIFY(decomposition && !decomposition->transform.empty());
    QVERIFY(decomposition->quantized.codebook == Codebook::E8P);
    const Status done = write_and_check(**run, *runs_.model());
    QVERIFY2(done, qPrintable(text_of(done)));
    const auto base = CheckpointReader::open(file("out"));
    const auto adapter = CheckpointReader::open(file("out") / "adapter" / "adapter_model.safetensors");
    QVERIFY(base && adapter);
    const auto q = (*base)->read(layer + ".weight");
    const auto a = (*adapter)->read("base_model.model." + layer + ".lora_A.weight");
    const auto b = (*adapter)->read("base_model.model." + layer + ".lora_B.weight");
    QVERIFY(q && a && b);
    const Matrix expected = decomposition->reconstruct();
    QVERIFY((*q + *b * *a - expected).norm() < 2e-3F * expected.norm());
}

void TestExportPeft::nothing_to_adapt_is_refused()
{
    const auto run = test::quick_run(runs_.model(), file("run"), "rtn", {});
    const Status refused = write_and_check(*run, *runs_.model());
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::Usage);
    QVERIFY2(text_of(refused).contains("Export as hf"), qPrintable(text_of(refused)));
    QVERIFY(!fs::exists(file("out")));
}

void TestExportPeft::experts_are_refused()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto model = Model::open(*shared / "models" / "tiny-arch" / "mixtral-moe");
    QVERIFY(model);
    const auto run = test::quick_run(*model, file("run"), "svd_residual", {{"rank", std::int64_t{2}}});
    const Status refused = write_and_check(*run, **model);
    QVERIFY(!refused);
    QVERIFY2(text_of(refused).contains("experts"), qPrintable(text_of(refused)));
    const auto attention = test::quick_run(*model, file("attention"), "svd_residual",
                                           {{"rank", std::int64_t{2}}}, {"*experts*:rank=0"});
    const Status done = write_and_check(*attention, **model);
    QVERIFY2(done, qPrintable(text_of(done)));
}

QTEST_GUILESS_MAIN(TestExportPeft)
#include "test_export_peft.moc"
