// SPDX-License-Identifier: GPL-3.0-or-later
// Families and scaled rotations against logits by transformers (data/tiny/make.py).
#include "core/calibration/calibration_store.h"
#include "core/model/model.h"
#include "core/run/run.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QTest>

#include <fstream>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

std::vector<TokenId> ids_of(const CheckpointReader& reader, const std::string& name)
{
    const Matrix numbers = reader.view(name)->to_matrix();
    return {numbers.data(), numbers.data() + numbers.size()};
}

fs::path tiny_folder() { return test::data_folder() / "tiny"; }

} // namespace

class TestTinyModels : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    void compare(const fs::path& folder, const CheckpointReader& expected, const std::string& prefix)
    {
        const auto model = Model::open(folder);
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        const auto weights = checkpoint_weights(*model);
        for (const char* prompt : {"0", "1"}) {
            const auto got = logits(**model, *weights, ids_of(expected, std::string("ids.") + prompt),
                                    *backend_, silent_monitor());
            QVERIFY2(got, got ? "" : got.error().sentence().c_str());
            const Matrix wanted = *expected.read(prefix + "." + prompt);
            const float range = wanted.maxCoeff() - wanted.minCoeff();
            const float difference = (*got - wanted).cwiseAbs().maxCoeff() / range;
            qInfo("%s %s.%s: %.1e of the range", folder.filename().c_str(), prefix.c_str(), prompt,
                  static_cast<double>(difference));
            QVERIFY2(difference < 1e-5F, QByteArray::number(difference));
        }
    }

private Q_SLOTS:
    void reference_logits_data()
    {
        QTest::addColumn<QString>("folder");
        for (const char* name :
             {"qwen2-moe", "qwen2-moe-dense-blocks", "qwen3-moe", "llama-rope", "phi3-longrope"})
            QTest::newRow(name) << name;
    }
    void reference_logits()
    {
        QFETCH(QString, folder);
        const fs::path path = tiny_folder() / folder.toStdString();
        const auto expected = CheckpointReader::open(path / "reference.safetensors");
        QVERIFY(expected);
        compare(path, **expected, "logits");
        if (!fs::exists(path / "variants.json"))
            return;
        const auto variants = Json::read(path / "variants.json");
        QVERIFY(variants);
        for (const auto& [name, changes] : *variants->object_if()) {
            const QTemporaryDir copy;
            const fs::path place = fs::path(copy.path().toStdString()) / name;
            fs::create_directories(place);
            fs::copy_file(path / "model.safetensors", place / "model.safetensors");
            auto config = *Json::read(path / "config.json");
            for (const auto& [key, value] : *changes.object_if())
                config.set(key, value);
            std::ofstream(place / "config.json") << config.dump();
            compare(place, **expected, name);
        }
    }

    void experts_are_layers_of_their_own()
    {
        const auto model = Model::open(tiny_folder() / "qwen2-moe-dense-blocks");
        QVERIFY(model);
        // Blocks 0, 2 and 3 have one MLP, block 1 six experts and the one for all tokens.
        QCOMPARE((*model)->linears().size(), std::size_t{4 * 4 + 3 * 3 + 7 * 3});
        const LinearLayer* expert = (*model)->find_linear("model.layers.1.mlp.experts.5.up_proj");
        QVERIFY(expert);
        QCOMPARE(expert->expert, 5);
        QCOMPARE(expert->out, Index{8});
        QCOMPARE(expert->input_group, std::string("model.layers.1.mlp.experts.5.gate_proj"));
        const LinearLayer* shared = (*model)->find_linear("model.layers.1.mlp.shared_expert.down_proj");
        QVERIFY(shared);
        QCOMPARE(shared->expert, -1);
        QCOMPARE(shared->in, Index{12});
        const LinearLayer* dense = (*model)->find_linear("model.layers.3.mlp.down_proj");
        QVERIFY(dense);
        QCOMPARE(dense->in, Index{24});
    }

    void each_expert_sees_its_tokens()
    {
        const auto model = Model::open(tiny_folder() / "qwen2-moe");
        QVERIFY(model);
        const auto weights = checkpoint_weights(*model);
        const auto expected = CheckpointReader::open(tiny_folder() / "qwen2-moe/reference.safetensors");
        const auto ids = ids_of(**expected, "ids.0");
        const auto tokens = static_cast<Index>(ids.size());
        auto hidden = embed(**model, ids, tokens, *backend_);
        QVERIFY(hidden);
        auto block = TransformerBlock::load(**model, *weights, 0, *backend_);
        QVERIFY(block);
        std::map<std::string, Index> seen;
        block->forward(*hidden, tokens, *backend_,
                       [&](const std::string& group, const Buffer& x, std::span<const Index>) {
                           seen[group] += x.rows();
                       });
        Index routed = 0;
        for (const auto& [group, rows] : seen) {
            if (group.find(".experts.") == std::string::npos)
                QCOMPARE(rows, tokens);
            else if (group.ends_with("gate_proj"))
                routed += rows;
        }
        QCOMPARE(routed, 2 * tokens);
        QVERIFY(seen.contains("model.layers.0.mlp.shared_expert.gate_proj"));
        QVERIFY(seen.contains("model.layers.0.mlp.shared_expert.down_proj"));
    }

    void configs_are_refused_by_key_data()
    {
        QTest::addColumn<QByteArray>("members");
        QTest::addColumn<QByteArray>("says");
        const auto row = [](const char* members, const char* says) {
            QTest::addRow("%s", members) << QByteArray(members) << QByteArray(says);
        };
        row(R"({"num_experts": 0})", "key num_experts: it is 0");
        row(R"({"num_experts_per_tok": 7})", "key num_experts_per_tok: it is 7");
        row(R"({"moe_intermediate_size": null})", "key moe_intermediate_size: the key is missing");
        row(R"({"shared_expert_intermediate_size": "12"})", "key shared_expert_intermediate_size");
        row(R"({"norm_topk_prob": 1})", "key norm_topk_prob: true or false");
        row(R"({"decoder_sparse_step": 0})", "key decoder_sparse_step: it is 0");
        row(R"({"mlp_only_layers": 1})", "key mlp_only_layers: a list of block numbers");
        row(R"({"mlp_only_layers": [2]})", "key mlp_only_layers: there is no block 2");
        row(R"({"mlp_only_layers": [-1]})", "key mlp_only_layers: there is no block -1");
    }
    void configs_are_refused_by_key()
    {
        QFETCH(QByteArray, members);
        QFETCH(QByteArray, says);
        auto config = Json::read(tiny_folder() / "qwen2-moe/config.json");
        QVERIFY(config);
        const auto changes = Json::parse(members.toStdString());
        for (const auto& [key, value] : *changes->object_if())
            config->set(key, value);
        const auto parsed = ModelConfig::parse(*config);
        QVERIFY(!parsed);
        const auto sentence = QByteArray::fromStdString(parsed.error().sentence());
        QVERIFY2(sentence.contains(says), sentence);
    }
};

QTEST_GUILESS_MAIN(TestTinyModels)
#include "test_tiny_models.moc"
