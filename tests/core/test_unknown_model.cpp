// SPDX-License-Identifier: GPL-3.0-or-later
// A model of a family that nobody has described: what works with its weights alone, and the sentence about
// the rest.
#include "core/calibration/calibration_store.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/evaluate/perplexity.h"
#include "core/export/exporter.h"
#include "core/model/model.h"
#include "core/run/run.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

class TestUnknownModel : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir folder_;
    std::shared_ptr<const Model> model_;

    fs::path file(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }

private Q_SLOTS:
    void initTestCase()
    {
        fs::create_directories(file("mamba"));
        std::ofstream(file("mamba/config.json")) << R"({"model_type": "mamba", "d_model": 8, "n_layer": 11})";
        std::vector<TensorSource> tensors;
        for (const char* name : {"backbone.embeddings.weight", "backbone.layers.2.mixer.in_proj.weight",
                                 "backbone.layers.10.mixer.out_proj.weight", "backbone.norm_f.weight",
                                 "backbone.layers.2.mixer.A_log", "lm_head.weight"})
            tensors.push_back(tensor_source(name, Matrix::Random(16, 8).eval()));
        tensors.push_back(tensor_source("backbone.layers.2.mixer.conv1d.weight", DType::F32, {4, 1, 2},
                                        std::vector<std::byte>(32)));
        QVERIFY(write_safetensors(file("mamba/model.safetensors"), std::move(tensors), {}, false));
        const auto opened = Model::open(file("mamba"));
        QVERIFY2(opened, opened ? "" : opened.error().sentence().c_str());
        model_ = *opened;
    }

    void its_matrices_are_layers()
    {
        QCOMPARE(model_->linears().size(), std::size_t{2});
        const LinearLayer& first = model_->linears().front();
        QCOMPARE(first.name, std::string("backbone.layers.2.mixer.in_proj"));
        QCOMPARE(first.block, 2);
        QCOMPARE(first.out, Index{16});
        QCOMPARE(short_name(first.role), std::string_view("other"));
        QCOMPARE(model_->linears().back().block, 10); // by number, not by letters
        QCOMPARE(model_->config().blocks, Index{11});
        QVERIFY(model_->weight(first));
    }

    void its_weights_can_be_rounded_and_exported()
    {
        const auto plan = uniform_plan(
            *model_, "svd_residual",
            {{"bits", std::int64_t{4}}, {"group", std::int64_t{8}}, {"rank", std::int64_t{2}}}, 7);
        QVERIFY2(plan, plan ? "" : plan.error().sentence().c_str());
        const Status done =
            Run::execute(model_, *plan, nullptr, file("run"), {}, *backend_, silent_monitor());
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
        const auto run = Run::open(file("run"));
        QVERIFY(run);
        const Exporter& exporter = **require_exporter("hf");
        const Status written = exporter.write(**run, *model_, file("out"), {}, silent_monitor());
        QVERIFY2(written, written ? "" : written.error().sentence().c_str());
        QVERIFY(Model::open(file("out")));
        QVERIFY(!(*require_exporter("hf-qlr"))->accepts(**run, *model_));
    }

    void what_needs_a_text_says_why_not()
    {
        const auto weights = checkpoint_weights(model_);
        const std::vector<TokenId> ids = {1, 2, 3};
        const fs::path text = test::sample_folder() / "evaluation.txt";
        std::vector<Error> errors;
        const auto expect = [&](const auto& result) {
            QVERIFY(!result);
            errors.push_back(result.error());
        };
        expect(model_->architecture().runs());
        expect(logits(*model_, *weights, ids, *backend_, silent_monitor()));
        expect(embed(*model_, ids, 3, *backend_));
        expect(TransformerBlock::load(*model_, *weights, 0, *backend_));
        expect(OutputHead::load(*model_, *backend_));
        expect(calibrate(model_, text, file("cal"), {}, *backend_, silent_monitor()));
        expect(perplexity(model_, *weights, text, {}, *backend_, silent_monitor()));
        for (const Error& error : errors) {
            const auto sentence = QByteArray::fromStdString(error.sentence());
            QVERIFY2(error.kind == ErrorKind::BadInput
                         && sentence.contains("the architecture \"mamba\" is not known")
                         && sentence.contains("no text can flow through it")
                         && sentence.contains("known: llama"),
                     sentence);
        }
        QVERIFY(!fs::exists(file("cal")));
    }

    void so_does_a_gguf_file()
    {
        test::GgufBuilder builder;
        builder.start(1, 1).key("general.architecture", 8).text("rwkv7");
        builder.tensor("blk.3.time_mix_key.weight", {4, 6}, 0, 0).pad().raw(std::string(96, '\0'));
        std::ofstream(file("rwkv.gguf"), std::ios::binary) << builder.bytes;
        const auto model = Model::open(file("rwkv.gguf"));
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        QCOMPARE((*model)->linears().size(), std::size_t{1});
        QCOMPARE((*model)->linears().front().block, 3);
        QVERIFY((*model)->architecture().runs().error().sentence().find("\"rwkv7\" is not known")
                != std::string::npos);
    }

    void a_family_must_have_a_name()
    {
        for (const char* config : {R"({"model_type": ""})", R"({"model_type": 5})", "{}", "[]"}) {
            std::ofstream(file("mamba/config.json")) << config;
            QVERIFY2(!Model::open(file("mamba")), config);
        }
    }
};

QTEST_GUILESS_MAIN(TestUnknownModel)
#include "test_unknown_model.moc"
