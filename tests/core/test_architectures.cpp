// SPDX-License-Identifier: GPL-3.0-or-later
// Families beyond Llama through the whole of core: calibrate, compress, run, export, open again.
#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/exporter.h"
#include "core/run/run.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <cstring>
#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

CalibrationOptions small_options()
{
    CalibrationOptions options;
    options.samples = 8;
    options.length = 64;
    return options;
}

/// A copy of a checkpoint of one file whose tensors' bytes went through `change`.
bool copy_model(const Model& model, const fs::path& folder,
                const std::function<void(const std::string&, std::vector<std::byte>&)>& change)
{
    std::vector<TensorSource> sources;
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        const auto view = model.checkpoint().view(info.name);
        std::vector<std::byte> bytes(view->bytes.begin(), view->bytes.end());
        change(info.name, bytes);
        sources.push_back(tensor_source(info.name, info.dtype, info.shape, std::move(bytes)));
    }
    for (const char* name : {"config.json", "tokenizer.json"})
        fs::copy_file(model.path() / name, folder / name);
    return write_safetensors(folder / "model.safetensors", std::move(sources), {}, true).has_value();
}

} // namespace

class TestArchitectures : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    std::unique_ptr<QTemporaryDir> folder_;

    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    static std::shared_ptr<const Model> tiny(const char* name)
    {
        auto model = Model::open(*test::shared_folder() / "models/tiny-arch" / name);
        if (!model)
            qFatal("%s", model.error().sentence().c_str());
        return *model;
    }
    Status calibrate_on_stories(const std::shared_ptr<const Model>& model)
    {
        return calibrate(model, *test::shared_folder() / "data/tinystories/real-sample.txt", file("cal"),
                         small_options(), *backend_, silent_monitor());
    }

private Q_SLOTS:
    void init()
    {
        if (!test::shared_folder())
            QSKIP(test::k_no_shared);
        folder_ = std::make_unique<QTemporaryDir>();
    }

    void whole_path_data()
    {
        QTest::addColumn<int>("layers");
        QTest::addColumn<bool>("packs");
        QTest::newRow("gpt2") << 8 << false;
        QTest::newRow("gpt2-hub-names") << 8 << false;
        QTest::newRow("opt") << 12 << true;
        QTest::newRow("gpt-neox-partial-rotary") << 8 << true;
        QTest::newRow("phi3-fused") << 8 << true;
        QTest::newRow("gemma3-text") << 21 << true;
        QTest::newRow("mixtral-moe") << 32 << false;
    }
    void whole_path()
    {
        QFETCH(int, layers);
        QFETCH(bool, packs);
        const auto model = tiny(QTest::currentDataTag());
        QCOMPARE(model->linears().size(), static_cast<std::size_t>(layers));
        const Status calibrated = calibrate_on_stories(model);
        QVERIFY2(calibrated, calibrated ? "" : calibrated.error().sentence().c_str());
        const auto calibration = CalibrationStore::open(file("cal"));
        QVERIFY(calibration);
        const auto plan =
            uniform_plan(*model, "odlri", {{"bits", std::int64_t{4}}, {"rank", std::int64_t{4}}}, 7);
        QVERIFY2(plan, plan ? "" : plan.error().sentence().c_str());
        const Status done =
            Run::execute(model, *plan, *calibration, file("run"), {}, *backend_, silent_monitor());
        QVERIFY2(done, done ? "" : done.error().sentence().c_str());
        const auto run = Run::open(file("run"));
        QVERIFY(run);
        for (const LayerResult& result : (*run)->results())
            QVERIFY2(result.quality.relative_activation_error < 0.25, result.layer.c_str());

        const Exporter& exporter = **require_exporter("hf");
        const Status written = exporter.write(**run, *model, file("out"), {}, silent_monitor());
        QVERIFY2(written, written ? "" : written.error().sentence().c_str());
        QVERIFY(exporter.check(**run, *model, file("out"), silent_monitor()));
        const auto exported = Model::open(file("out"));
        QVERIFY2(exported, exported ? "" : exported.error().sentence().c_str());
        for (const LinearLayer& layer : (*exported)->linears()) {
            const auto weight = (*exported)->weight(layer);
            QVERIFY(weight && *weight == (*run)->decomposition(layer.name)->reconstruct());
        }
        QCOMPARE((*require_exporter("hf-qlr"))->accepts(**run, *model).has_value(), packs);

        // What is exported computes what the run's factors compute.
        const std::vector<TokenId> ids = {1, 40, 7, 300, 21, 5};
        const auto of_run = logits(*model, *run_weights(model, *run), ids, *backend_, silent_monitor());
        const auto of_export =
            logits(**exported, *checkpoint_weights(*exported), ids, *backend_, silent_monitor());
        const auto original = logits(*model, *checkpoint_weights(model), ids, *backend_, silent_monitor());
        QVERIFY(of_run && of_export && original);
        const float largest = of_export->cwiseAbs().maxCoeff();
        QVERIFY((*of_run - *of_export).cwiseAbs().maxCoeff() < 1e-3F * largest);
        QVERIFY((*of_run - *original).cwiseAbs().maxCoeff() > 1e-3F * largest);
    }

    void each_expert_has_moments_of_its_tokens()
    {
        const auto model = tiny("mixtral-moe");
        QVERIFY(calibrate_on_stories(model));
        const auto calibration = CalibrationStore::open(file("cal"));
        QVERIFY(calibration);
        for (const char* block : {"0", "1"}) {
            const std::string prefix = std::string("model.layers.") + block + ".";
            const std::uint64_t all = (*calibration)->moments(prefix + "self_attn.q_proj")->tokens;
            QCOMPARE(all, std::uint64_t{512});
            std::uint64_t routed = 0;
            for (const char* expert : {"0", "1", "2", "3"}) {
                const std::string name = prefix + "block_sparse_moe.experts." + expert;
                const auto in = (*calibration)->moments(name + ".w1");
                const auto inner = (*calibration)->moments(name + ".w2");
                QVERIFY(in && inner);
                QCOMPARE(in->tokens, inner->tokens);
                QVERIFY(in->tokens < all);
                routed += in->tokens;
                QCOMPARE(model->find_linear(name + ".w3")->input_group, name + ".w1");
            }
            QCOMPARE(routed, 2 * all); // each token goes to two
        }
    }

    void an_expert_without_tokens_is_named()
    {
        // Three experts score alike and the first of equals is taken: the last one never is.
        const auto original = tiny("mixtral-moe");
        fs::create_directories(file("model"));
        QVERIFY(
            copy_model(*original, file("model"), [](const std::string& name, std::vector<std::byte>& bytes) {
                const std::size_t row = bytes.size() / 4;
                if (name.ends_with("block_sparse_moe.gate.weight")) {
                    std::memcpy(bytes.data() + 2 * row, bytes.data() + row, row);
                    std::memcpy(bytes.data() + 3 * row, bytes.data() + row, row);
                }
            }));
        const auto model = Model::open(file("model"));
        QVERIFY(model);
        QVERIFY(calibrate_on_stories(*model));
        const auto calibration = CalibrationStore::open(file("cal"));
        QVERIFY(calibration);
        const auto moments = (*calibration)->moments("model.layers.0.block_sparse_moe.experts.3.w1");
        QVERIFY(!moments);
        const auto sentence = QByteArray::fromStdString(moments.error().sentence());
        QVERIFY2(sentence.contains("no token of the calibration text reached")
                     && sentence.contains("experts.3.w1"),
                 sentence);
        QVERIFY((*calibration)->moments("model.layers.0.block_sparse_moe.experts.1.w1"));
    }

    void learned_positions_end()
    {
        const auto model = tiny("opt");
        const std::vector<TokenId> ids(257, 3);
        const auto embedded = embed(*model, ids, 257, *backend_);
        QVERIFY(!embedded);
        QVERIFY(embedded.error().sentence().find("256 positions") != std::string::npos);
        QVERIFY(embed(*model, std::vector<TokenId>(512, 3), 256, *backend_)); // two sequences
    }

    void configs_are_refused_by_key_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* folder, const char* members, const char* says) {
            QTest::addRow("%s: %s", folder, says) << QByteArray(members) << QByteArray(says);
        };
        row("opt", R"({"do_layer_norm_before": false})", "key do_layer_norm_before");
        row("opt", R"({"word_embed_proj_dim": 32})", "key word_embed_proj_dim");
        row("opt", R"({"activation_function": "silu"})", "key activation_function");
        row("gpt2", R"({"n_head": 5})", "key head_dim");
        row("gpt2", R"({"n_embd": null})", "key n_embd: the key is missing");
        row("gpt2", R"({"scale_attn_by_inverse_layer_idx": true})", "key scale_attn_by_inverse_layer_idx");
        row("gpt-neox-partial-rotary", R"({"rotary_pct": 1.5})", "key rotary_pct");
        row("gpt-neox-partial-rotary", R"({"rotary_pct": 0.2})", "pairs are turned");
        row("phi3-fused", R"({"rope_scaling": {"type": "longrope"}})", "key rope_scaling.short_factor");
        row("gemma2-softcap", R"({"attn_logit_softcapping": -1})", "key attn_logit_softcapping");
        row("gemma2-softcap", R"({"layer_types": ["full_attention"]})", "key layer_types");
        row("gemma2-softcap", R"({"layer_types": ["full_attention", "linear"]})", "the type \"linear\"");
        row("gemma2-softcap", R"({"use_bidirectional_attention": true})", "key use_bidirectional_attention");
        row("gemma3-text", R"({"rope_parameters": {"full_attention": {"rope_type": "ntk"}}})",
            "\"ntk\" is not known");
        row("gemma3-text", R"({"rope_parameters": {"sliding_attention": {"rope_type": "dynamic"}}})",
            "key rope_scaling.factor");
        row("mixtral-moe", R"({"num_local_experts": 0})", "key num_local_experts");
        row("mixtral-moe", R"({"num_experts_per_tok": 5})", "key num_experts_per_tok");
    }
    void configs_are_refused_by_key()
    {
        QFETCH(QByteArray, members);
        QFETCH(QByteArray, says);
        const std::string tag = QTest::currentDataTag();
        auto config = Json::read(*test::shared_folder() / "models/tiny-arch" / tag.substr(0, tag.find(':'))
                                 / "config.json");
        QVERIFY(config);
        const auto changes = Json::parse(members.toStdString());
        QVERIFY(changes);
        for (const auto& [key, value] : *changes->object_if())
            config->set(key, value);
        const auto parsed = ModelConfig::parse(*config);
        const Error error = parsed ? architecture_for(*parsed).error() : parsed.error();
        const auto sentence = QByteArray::fromStdString(error.sentence());
        QVERIFY2(sentence.contains(says), sentence);
    }
};

QTEST_GUILESS_MAIN(TestArchitectures)
#include "test_architectures.moc"
