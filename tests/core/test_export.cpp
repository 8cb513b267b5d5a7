// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/tensor/half.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <set>

using namespace rankscope;
using test::bytes_of;
using test::text_of;
namespace fs = std::filesystem;

namespace {

/// 8 bits and a scale for each row: whole words in every layout, whatever the shapes.
const test::Given k_every_format_takes = {
    {"bits", std::int64_t{8}}, {"group", std::int64_t{0}}, {"symmetric", true}, {"rank", std::int64_t{4}}};

} // namespace

class TestExport : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void registry_knows_its_formats();
    void writes_what_the_run_holds_data();
    void writes_what_the_run_holds();
    void dense_weights_are_bit_exact();
    void other_tensors_and_files_are_copied();
    void keeps_the_stored_type();
    void keeps_shards();
    void refuses_values_beyond_the_type();
    void refuses_an_unfinished_run();
    void refuses_rounded_activations();
    void refuses_a_changed_checkpoint();
    void check_finds_a_flipped_bit_data();
    void check_finds_a_flipped_bit();

private:
    fs::path file(const std::string& name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write(const Exporter& exporter, const Run& run, const fs::path& out,
                 Monitor& monitor = silent_monitor())
    {
        return exporter.write(run, *runs_.model(), out, {}, monitor);
    }

    test::SampleRuns runs_;
    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExport::registry_knows_its_formats()
{
    std::set<std::string> ids;
    for (const Exporter* exporter : exporters()) {
        QVERIFY(ids.insert(exporter->info().id).second);
        QVERIFY(!exporter->info().title.empty() && !exporter->info().summary.empty());
        QCOMPARE(*require_exporter(exporter->info().id), exporter);
    }
    QVERIFY(ids.contains("hf") && ids.contains("hf-qlr") && ids.contains("peft"));
    const auto unknown = require_exporter("onnx");
    QVERIFY(!unknown);
    QCOMPARE(unknown.error().kind, ErrorKind::Usage);
    QVERIFY(unknown.error().sentence().find("hf-qlr") != std::string::npos);
}

void TestExport::writes_what_the_run_holds_data() { test::add_format_rows(); }

void TestExport::writes_what_the_run_holds()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    const auto run = runs_.fit_for(exporter);
    QVERIFY(run);
    test::TestMonitor monitor;
    const Status written = write(exporter, *run, file("out"), monitor);
    QVERIFY2(written, qPrintable(text_of(written)));
    QVERIFY(monitor.reports() > 40 && monitor.within_total());
    const Status checked = exporter.check(*run, *runs_.model(), file("out"), silent_monitor());
    QVERIFY2(checked, qPrintable(text_of(checked)));
    // The estimate is an upper bound that is not far off.
    std::uint64_t size = 0;
    for (const auto& [name, content] : test::folder_contents(file("out")))
        size += content.size();
    const auto estimate = exporter.estimate_bytes(*run, *runs_.model());
    QVERIFY(estimate);
    QVERIFY2(*estimate >= size && *estimate < size + (2 << 20),
             qPrintable(QString("%1 for %2").arg(*estimate).arg(size)));
    // The same run gives the same bytes.
    QVERIFY(write(exporter, *run, file("again")));
    QVERIFY(test::folder_contents(file("again")) == test::folder_contents(file("out")));
}

void TestExport::dense_weights_are_bit_exact()
{
    QVERIFY(write(**require_exporter("hf"), *runs_.ragged(), file("out")));
    const auto reader = CheckpointReader::open(file("out"));
    QVERIFY(reader);
    for (const LinearLayer& layer : runs_.model()->linears()) {
        const auto decomposition = runs_.ragged()->decomposition(layer.name);
        QVERIFY(decomposition);
        const auto stored = (*reader)->read(layer.weight());
        QVERIFY(stored);
        QVERIFY2(*stored == decomposition->reconstruct(), layer.name.c_str());
        QVERIFY(*stored != *runs_.model()->checkpoint().read(layer.weight()));
    }
    QCOMPARE((*reader)->metadata()["format"].string(), std::string("pt"));
    const auto report = Json::read(file("out") / "rankscope.json");
    QVERIFY(report);
    const Json& layer = (*report)["layers"]["model.layers.3.mlp.down_proj"];
    QCOMPARE(layer["method"].string(), std::string("svd_residual"));
    QCOMPARE(layer["parameters"]["bits"].integer(), std::int64_t{3});
    QVERIFY(layer["relative_activation_error"].number() > 0.0);
    QVERIFY(layer["bits_per_weight"].number() > 3.0);
}

void TestExport::other_tensors_and_files_are_copied()
{
    const auto run = test::quick_run(runs_.model(), file("run"), "svd_residual",
                                     {{"bits", std::int64_t{4}}, {"group", std::int64_t{32}}},
                                     {"model.layers.1.mlp.*:include=false"});
    const std::map<std::string, const char*> weights = {
        {"hf", "model.safetensors"}, {"hf-qlr", "qlr.safetensors"}, {"peft", "model.safetensors"}};
    for (const auto& [format, weights_file] : weights) {
        const Exporter* exporter = *require_exporter(format);
        const fs::path out = file(format);
        QVERIFY(exporter->write(*run, *runs_.model(), out, {}, silent_monitor()));
        QVERIFY(exporter->check(*run, *runs_.model(), out, silent_monitor()));
        const auto reader = CheckpointReader::open(out / weights_file);
        QVERIFY(reader);
        for (const char* name : {"model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight",
                                 "model.embed_tokens.weight", "model.norm.weight"})
            QVERIFY2(bytes_of(**reader, name) == bytes_of(runs_.model()->checkpoint(), name), name);
        for (const char* name :
             {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
            QVERIFY(*read_text_file(out / name) == *read_text_file(test::sample_folder() / name));
    }
}

void TestExport::keeps_the_stored_type()
{
    for (const DType dtype : {DType::BF16, DType::F16}) {
        const std::string type(name(dtype));
        const fs::path checkpoint = file(type);
        QVERIFY(test::copy_sample(
            checkpoint, [](std::string_view, Matrix&) {}, dtype));
        const auto model = Model::open(checkpoint);
        QVERIFY(model);
        const auto run = test::quick_run(*model, file("run" + type), "svd_residual", k_every_format_takes);
        for (const Exporter* exporter : exporters()) {
            const fs::path out = file(type + exporter->info().id);
            const Status written = exporter->write(*run, **model, out, {}, silent_monitor());
            QVERIFY2(written, qPrintable(text_of(written)));
            QVERIFY(exporter->check(*run, **model, out, silent_monitor()));
        }
        const auto reader = CheckpointReader::open(file(type + "hf"));
        QVERIFY(reader);
        for (const TensorInfo& info : (*reader)->tensors())
            QCOMPARE(info.dtype, dtype);
    }
}

void TestExport::keeps_shards()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto model = Model::open(*shared / "models" / "tiny-arch" / "llama-gqa-untied-sharded");
    QVERIFY(model);
    const auto run = test::quick_run(*model, file("run"), "svd_residual", k_every_format_takes);
    for (const Exporter* exporter : exporters()) {
        const fs::path out = file(exporter->info().id);
        const Status written = exporter->write(*run, **model, out, {}, silent_monitor());
        QVERIFY2(written, qPrintable(text_of(written)));
        QVERIFY(exporter->check(*run, **model, out, silent_monitor()));
    }
    const auto reader = CheckpointReader::open(file("hf"));
    QVERIFY(reader);
    QCOMPARE((*reader)->files().size(), (*model)->checkpoint().files().size());
    for (const TensorInfo& info : (*model)->checkpoint().tensors()) {
        const TensorInfo* exported = (*reader)->find(info.name);
        QVERIFY(exported);
        QCOMPARE((*reader)->files()[static_cast<std::size_t>(exported->file)].filename(),
                 (*model)->checkpoint().files()[static_cast<std::size_t>(info.file)].filename());
    }
}

void TestExport::refuses_values_beyond_the_type()
{
    // Two symmetric bits of the full rule reach 4/3 of the largest weight: 4/3 · 6e4 is beyond F16.
    QVERIFY(test::copy_sample(
        file("model"),
        [](std::string_view name, Matrix& values) {
            if (name == "model.layers.0.mlp.up_proj.weight")
                values(0, 0) = -6e4f;
        },
        DType::F16));
    const auto model = Model::open(file("model"));
    QVERIFY(model);
    const auto run = test::quick_run(*model, file("run"), "rtn",
                                     {{"bits", std::int64_t{2}},
                                      {"group", std::int64_t{64}},
                                      {"symmetric", true},
                                      {"clip_search", std::string("none")}});
    const Status written = (*require_exporter("hf"))->write(*run, **model, file("out"), {}, silent_monitor());
    QVERIFY(!written);
    QCOMPARE(written.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(written).contains("model.layers.0.mlp.up_proj") && text_of(written).contains("F16"),
             qPrintable(text_of(written)));
    QVERIFY(!fs::exists(file("out")));
}

void TestExport::refuses_rounded_activations()
{
    const test::Given four = {{"bits", std::int64_t{4}}, {"group", std::int64_t{0}}, {"symmetric", true}};
    const auto run = test::make_sample_run(runs_.model(), file("work"), "lrc", four, {4, 0.9});
    QVERIFY2(run, run ? "" : run.error().sentence().c_str());
    for (const Exporter* exporter : exporters()) {
        const Status accepted = exporter->accepts(**run, *runs_.model());
        if (exporter->info().id == "report") { // holds no weights
            QVERIFY2(accepted, qPrintable(text_of(accepted)));
            continue;
        }
        QVERIFY(!accepted);
        QCOMPARE(accepted.error().kind, ErrorKind::Usage);
        for (const char* words : {"4 bits", "weights alone", "activation_bits=16", "model.layers.0"})
            QVERIFY2(text_of(accepted).contains(words), qPrintable(text_of(accepted)));
        QVERIFY(!exporter->write(**run, *runs_.model(), file("out"), {}, silent_monitor()));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExport::refuses_an_unfinished_run()
{
    const auto plan =
        uniform_plan(*runs_.model(), "rtn", {{"bits", std::int64_t{4}}, {"group", std::int64_t{64}}}, 0);
    const auto backend = make_cpu_backend();
    test::TestMonitor monitor(3);
    QVERIFY(plan && !Run::execute(runs_.model(), *plan, nullptr, file("run"), {}, *backend, monitor));
    const auto run = Run::open(file("run"));
    QVERIFY(run);
    QVERIFY(!(*run)->complete());
    for (const Exporter* exporter : exporters()) {
        const Status written = exporter->write(**run, *runs_.model(), file("out"), {}, silent_monitor());
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::BadInput);
        QVERIFY2(text_of(written).contains("not complete") && text_of(written).contains("--resume"),
                 qPrintable(text_of(written)));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExport::refuses_a_changed_checkpoint()
{
    QVERIFY(test::copy_sample(
        file("other"), [](std::string_view, Matrix&) {}, DType::BF16));
    const auto other = Model::open(file("other"));
    QVERIFY(other);
    for (const Exporter* exporter : exporters()) {
        const Status written = exporter->write(*runs_.by_row(), **other, file("out"), {}, silent_monitor());
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::BadInput);
        QVERIFY2(text_of(written).contains("changed"), qPrintable(text_of(written)));
        QVERIFY(!exporter->accepts(*runs_.by_row(), **other));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExport::check_finds_a_flipped_bit_data()
{
    QTest::addColumn<QString>("format");
    QTest::addColumn<QString>("file");
    QTest::addColumn<QString>("tensor");
    const auto row = [](const char* title, const char* format, const char* file, const char* tensor) {
        QTest::newRow(title) << format << file << tensor;
    };
    const char* dense = "model.safetensors";
    const char* packed = "qlr.safetensors";
    const char* adapter = "adapter/adapter_model.safetensors";
    row("dense weight", "hf", dense, "model.layers.2.self_attn.v_proj.weight");
    row("copied tensor", "hf", dense, "model.norm.weight");
    row("codes", "hf-qlr", packed, "model.layers.2.self_attn.v_proj.qlr_codes");
    row("scales", "hf-qlr", packed, "model.layers.2.self_attn.v_proj.qlr_scales");
    row("zero points of hf-qlr", "hf-qlr", packed, "model.layers.2.self_attn.v_proj.qlr_zeros");
    row("left", "hf-qlr", packed, "model.layers.2.self_attn.v_proj.qlr_left");
    row("right", "hf-qlr", packed, "model.layers.2.self_attn.v_proj.qlr_right");
    row("copied beside packed", "hf-qlr", packed, "model.embed_tokens.weight");
    row("base", "peft", dense, "model.layers.2.self_attn.v_proj.weight");
    row("adapter's right", "peft", adapter, "base_model.model.model.layers.2.self_attn.v_proj.lora_A.weight");
    row("packed codes", "compressed-tensors", dense, "model.layers.2.self_attn.v_proj.weight_packed");
    row("packed scales", "compressed-tensors", dense, "model.layers.2.self_attn.v_proj.weight_scale");
    row("words down the inputs", "gptq", dense, "model.layers.2.self_attn.v_proj.qweight");
    row("zero points", "gptq", dense, "model.layers.2.self_attn.v_proj.qzeros");
    row("group numbers", "gptq", dense, "model.layers.2.self_attn.v_proj.g_idx");
    row("adapter's left", "peft", adapter, "base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight");
}

void TestExport::check_finds_a_flipped_bit()
{
    QFETCH(QString, format);
    QFETCH(QString, file);
    QFETCH(QString, tensor);
    const Exporter& exporter = **require_exporter(format.toStdString());
    const auto run = runs_.fit_for(exporter);
    const fs::path out = this->file("out");
    QVERIFY(write(exporter, *run, out));
    const Status flipped = test::flip_bit(out / file.toStdString(), tensor.toStdString());
    QVERIFY2(flipped, qPrintable(text_of(flipped)));
    const Status checked = exporter.check(*run, *runs_.model(), out, silent_monitor());
    QVERIFY(!checked);
    QCOMPARE(checked.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(checked).contains(tensor.section(".qlr_", 0, 0)), qPrintable(text_of(checked)));
}

QTEST_GUILESS_MAIN(TestExport)
#include "test_export.moc"
