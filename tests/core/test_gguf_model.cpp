// SPDX-License-Identifier: GPL-3.0-or-later
// The worked GGUF exports, opened as models: names, row order, configuration and vocabulary translated.
#include "core/compute/backend.h"
#include "core/evaluate/perplexity.h"
#include "core/model/gguf_model.h"
#include "core/model/model.h"
#include "tests/support/test_paths.h"

#include <QTest>

using namespace rankscope;
namespace fs = std::filesystem;

class TestGgufModel : public QObject {
    Q_OBJECT
    std::optional<fs::path> shared_ = rankscope::test::shared_folder();

    std::shared_ptr<const Model> open(const fs::path& below)
    {
        auto model = Model::open(*shared_ / below);
        if (!model)
            qWarning("%s", model.error().sentence().c_str());
        return model ? *model : nullptr;
    }

private Q_SLOTS:
    void init()
    {
        if (!shared_)
            QSKIP(rankscope::test::k_no_shared);
    }

    void weights_are_the_models_up_to_rounding_data()
    {
        QTest::addColumn<QString>("name");
        QTest::newRow("stories260k") << "stories260k";
        QTest::newRow("babyllama-105") << "babyllama-105";
    }
    void weights_are_the_models_up_to_rounding()
    {
        QFETCH(QString, name);
        const auto original = open(fs::path("models") / name.toStdString());
        const auto gguf = open(fs::path("golden/exports") / name.toStdString() / "gguf/base-q4_0.gguf");
        QVERIFY(original && gguf);
        QCOMPARE(gguf->config().heads, original->config().heads);
        QCOMPARE(gguf->config().kv_heads, original->config().kv_heads);
        QCOMPARE(gguf->config().tied_embeddings, original->config().tied_embeddings);
        QCOMPARE(gguf->config().norm_epsilon, original->config().norm_epsilon);
        QCOMPARE(gguf->linears().size(), original->linears().size());
        for (const LinearLayer& layer : original->linears()) {
            const auto expected = original->checkpoint().read(layer.weight());
            const auto read = gguf->checkpoint().read(layer.weight());
            QVERIFY(expected && read);
            QCOMPARE(read->rows(), expected->rows());
            // Rows in llama.cpp's order would be as far away as unrelated ones: about 1.4.
            QVERIFY2((*read - *expected).norm() < 0.2F * expected->norm(), layer.name.c_str());
        }
    }

    void vocabulary_encodes_alike()
    {
        const auto original = open("models/stories260k");
        const auto gguf = open("golden/exports/stories260k/gguf/base-q4_0.gguf");
        QVERIFY(original && gguf);
        const auto a = original->tokenizer();
        const auto b = gguf->tokenizer();
        QVERIFY2(b, b ? "" : b.error().sentence().c_str());
        QCOMPARE((*a)->prefix().size(), (*b)->prefix().size());
        for (const char* text :
             {"Once upon a time, there was a girl.", "  two  spaces ", "\n\tÄ 漢 🙂", "<s>x</s>", ""}) {
            const auto expected = (*a)->encode(text);
            const auto ids = (*b)->encode(text);
            QVERIFY(expected && ids);
            QVERIFY2(*ids == *expected, text);
            QCOMPARE((*b)->decode(*ids), (*a)->decode(*expected));
        }
    }

    void perplexity_is_the_documented_one()
    {
        // 4.985 by transformers on the same file (golden/exports/README.md).
        const auto gguf = open("golden/exports/stories260k/gguf/base-q4_0.gguf");
        QVERIFY(gguf);
        const auto backend = make_cpu_backend();
        PerplexityOptions options;
        options.protocol = PerplexityProtocol::Windows;
        options.length = 256;
        const auto result =
            perplexity(gguf, *checkpoint_weights(gguf), *shared_ / "data/tinystories/real-sample.txt",
                       options, *backend, silent_monitor());
        QVERIFY2(result, result ? "" : result.error().sentence().c_str());
        QVERIFY2(std::abs(result->perplexity / 4.985 - 1) < 0.005,
                 qPrintable(QString::number(result->perplexity)));
    }

    void adapters_and_unknown_families_are_refused_by_name()
    {
        const auto lora = Model::open(*shared_ / "golden/exports/stories260k/gguf/lora.gguf");
        QVERIFY(!lora);
        QCOMPARE(lora.error().kind, ErrorKind::BadInput);
        QVERIFY(lora.error().sentence().find("lora.gguf") != std::string::npos);
    }
};

QTEST_GUILESS_MAIN(TestGgufModel)
#include "test_gguf_model.moc"
