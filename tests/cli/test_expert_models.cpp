// SPDX-License-Identifier: GPL-3.0-or-later
// The whole job on models of experts: each expert's linears are layers of their own, with moments of the
// tokens that were sent to it.
#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "tests/support/command.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <string_view>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

/// One token a character, as many as the models have; all other characters are "<unk>".
Json characters(std::int64_t count)
{
    constexpr std::string_view k_characters = "\n !',.abcdefghijklmnopqrstuvwxyzABCDHILMNOSTWY";
    Json vocabulary;
    vocabulary.set("<unk>", std::int64_t{0});
    for (std::int64_t id = 1; id < count; ++id) {
        const auto index = static_cast<std::size_t>(id - 1);
        vocabulary.set(index < k_characters.size() ? std::string(1, k_characters[index])
                                                   : "<" + std::to_string(id) + ">",
                       id);
    }
    Json model;
    model.set("type", "BPE");
    model.set("unk_token", "<unk>");
    model.set("vocab", std::move(vocabulary));
    model.set("merges", Json(Json::Array{}));
    Json tokenizer;
    tokenizer.set("version", "1.0");
    tokenizer.set("model", std::move(model));
    return tokenizer;
}

} // namespace

class TestExpertModels : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;
    QString sample_ = QString::fromStdString(sample_folder().string());

    QString place(const QString& name) const { return folder_.filePath(name); }

private Q_SLOTS:
    void calibrated_compressed_and_exported_data()
    {
        QTest::addColumn<int>("layers");
        QTest::newRow("qwen2-moe") << 50; // 2 blocks of 4 + 6 experts × 3 + the shared expert's 3
        QTest::newRow("qwen3-moe") << 44;
    }
    void calibrated_compressed_and_exported()
    {
        QFETCH(int, layers);
        const QString name = QTest::currentDataTag();
        const QString model = place(name);
        const fs::path source = fs::path(RANKSCOPE_SOURCE_DIR) / "tests/core/data/tiny" / name.toStdString();
        const fs::path folder = model.toStdString();
        fs::create_directories(folder);
        for (const char* file : {"config.json", "model.safetensors"})
            fs::copy_file(source / file, folder / file);
        const auto vocabulary = (*Json::read(source / "config.json"))["vocab_size"].integer(0);
        QVERIFY(write_text_file(folder / "tokenizer.json", characters(vocabulary).dump(), false).has_value());

        const QString moments = place(name + ".cal");
        const QString plan = place(name + ".json");
        const QString run = place(name + ".run");
        const QString exported = place(name + ".hf");
        QCOMPARE(run_cli({"calibrate", model, "--text", sample_ + "/calibration.txt", "--samples", "32",
                          "--length", "48", "--out", moments})
                     .status,
                 0);
        QCOMPARE(run_cli({"plan", model, "--method", "odlri", "--bits", "3", "--group", "8", "--rank", "2",
                          "--out", plan})
                     .status,
                 0);
        const QJsonObject done =
            document({"compress", model, "--plan", plan, "--calibration", moments, "--out", run});
        QCOMPARE(done["layers"].toArray().size(), layers);
        const QStringList text = {"--text", sample_ + "/evaluation.txt", "--length", "48", "--max-tokens",
                                  "2000"};
        const QJsonObject judged = document(QStringList{"evaluate", run} + text);
        QCOMPARE(run_cli({"export", run, "--format", "hf", "--out", exported}).status, 0);
        const QJsonObject read_back = document(QStringList{"evaluate", exported} + text);
        const double ours = judged["perplexity"].toDouble();
        const double theirs = read_back["perplexity"].toDouble();
        QVERIFY2(ours > 1.0 && std::abs(theirs / ours - 1.0) < 5e-3,
                 qPrintable(QString("%1 %2").arg(ours).arg(theirs)));
    }
};

QTEST_GUILESS_MAIN(TestExpertModels)
#include "test_expert_models.moc"
