// SPDX-License-Identifier: GPL-3.0-or-later
// Every reference checkpoint as a Hugging Face folder and as the GGUF file that the gguf package writes of
// it: logits and perplexity of both against transformers'. Needs a Python with torch, safetensors,
// sentencepiece and gguf, named by RANKSCOPE_CLIENT_PYTHON.
#include "core/model/model.h"
#include "tests/support/test_paths.h"

#include <QProcess>
#include <QTemporaryDir>
#include <QTest>

#include <cmath>
#include <cstdlib>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// How far a model is from the reference.
struct Distance {
    double logits = 0.0; ///< largest difference, in ranges of the reference's logits
    double perplexity = 0.0;
};

double negative_log_likelihood(const Matrix& logits, const std::vector<TokenId>& ids)
{
    double sum = 0.0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const VectorD row = logits.row(static_cast<Index>(i)).cast<double>();
        const double largest = row.maxCoeff();
        sum += largest + std::log((row.array() - largest).exp().sum()) - row[ids[i + 1]];
    }
    return sum;
}

} // namespace

class TestGgufWritten : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir scratch_;
    fs::path models_;
    QString python_;

    Distance compare(const fs::path& place, const fs::path& reference)
    {
        Distance distance;
        const auto model = Model::open(place);
        if (!model) {
            QTest::qFail(model.error().sentence().c_str(), __FILE__, __LINE__);
            return distance;
        }
        const auto expected = CheckpointReader::open(reference / "reference.safetensors");
        double sum = 0.0;
        std::size_t targets = 0;
        for (int prompt = 0; (*expected)->find("ids." + std::to_string(prompt)); ++prompt) {
            const Matrix numbers = (*expected)->view("ids." + std::to_string(prompt))->to_matrix();
            const std::vector<TokenId> ids(numbers.data(), numbers.data() + numbers.size());
            const auto got = logits(**model, *checkpoint_weights(*model), ids, *backend_, silent_monitor());
            const Matrix wanted = *(*expected)->read("logits." + std::to_string(prompt));
            const double range = static_cast<double>(wanted.maxCoeff() - wanted.minCoeff());
            distance.logits =
                std::max(distance.logits, static_cast<double>((*got - wanted).cwiseAbs().maxCoeff()) / range);
            sum += negative_log_likelihood(*got, ids);
            targets += ids.size() - 1;
        }
        distance.perplexity = std::exp(sum / static_cast<double>(targets));
        return distance;
    }

    static double perplexity_of_reference(const fs::path& reference)
    {
        const auto json = Json::read(reference / "reference.json");
        double sum = 0.0;
        double targets = 0.0;
        for (const Json& prompt : *(*json)["prompts"].array_if()) {
            sum += prompt["nll_sum"].number();
            targets += static_cast<double>(prompt["ids"].array_if()->size()) - 1.0;
        }
        return std::exp(sum / targets);
    }

private Q_SLOTS:
    void initTestCase()
    {
        const char* python = std::getenv("RANKSCOPE_CLIENT_PYTHON");
        if (!python || !*python)
            QSKIP("no client: set RANKSCOPE_CLIENT_PYTHON to a Python that has torch, safetensors and gguf");
        python_ = QString::fromUtf8(python);
        if (!test::shared_folder())
            QSKIP(test::k_no_shared);
        models_ = *test::shared_folder() / "models/tiny-arch";
    }

    void logits_and_perplexity_data()
    {
        QTest::addColumn<bool>("known_to_llama_cpp");
        for (const char* name :
             {"llama-gqa-tied", "llama-gqa-untied-sharded", "mistral-sliding-fp16", "mixtral-moe",
              "qwen2-bias-bf16", "qwen3-qknorm", "phi3-fused", "gemma2-softcap", "gemma3-text", "gpt2",
              "gpt2-hub-names", "gpt-neox-partial-rotary"})
            QTest::newRow(name) << true;
        QTest::newRow("opt") << false;
    }
    void logits_and_perplexity()
    {
        QFETCH(bool, known_to_llama_cpp);
        const fs::path folder = models_ / QTest::currentDataTag();
        const double wanted = perplexity_of_reference(folder);
        const Distance ours = compare(folder, folder);
        QVERIFY2(ours.logits < 2e-4, QByteArray::number(ours.logits));
        QVERIFY2(std::abs(ours.perplexity / wanted - 1.0) < 1e-4, QByteArray::number(ours.perplexity));
        if (!known_to_llama_cpp) {
            qInfo("| %s | %.1e | %.4f | %.4f | - | - |", QTest::currentDataTag(), ours.logits, wanted,
                  ours.perplexity);
            return;
        }
        const fs::path file = fs::path(scratch_.path().toStdString()) / "model.gguf";
        QProcess process;
        process.start(python_,
                      {QStringLiteral(RANKSCOPE_SOURCE_DIR "/tests/clients/write_gguf.py"),
                       QString::fromStdString(folder.string()), QString::fromStdString(file.string())});
        QVERIFY(process.waitForFinished(120000));
        QVERIFY2(process.exitCode() == 0, process.readAllStandardError());
        const Distance gguf = compare(file, folder);
        qInfo("| %s | %.1e | %.4f | %.4f | %.1e | %.4f |", QTest::currentDataTag(), ours.logits, wanted,
              ours.perplexity, gguf.logits, gguf.perplexity);
        QVERIFY2(gguf.logits < 2e-4, QByteArray::number(gguf.logits));
        QVERIFY2(std::abs(gguf.perplexity / wanted - 1.0) < 1e-4, QByteArray::number(gguf.perplexity));
        same_tokens(folder, file);
    }

private:
    void same_tokens(const fs::path& folder, const fs::path& file)
    {
        const auto ours = Tokenizer::read(folder);
        const auto gguf = (*Model::open(file))->tokenizer();
        QVERIFY(ours);
        QVERIFY2(gguf, gguf ? "" : gguf.error().sentence().c_str());
        for (const char* text :
             {"Once upon a time, there was a girl.", "  two  spaces ", "\n\tÄ 漢 1234 🙂", "don't"}) {
            QVERIFY2(*(*ours)->encode(text) == *(*gguf)->encode(text), text);
            QCOMPARE((*gguf)->decode(*(*gguf)->encode(text)), (*ours)->decode(*(*ours)->encode(text)));
        }
        QCOMPARE((*ours)->prefix().size(), (*gguf)->prefix().size());
    }
};

QTEST_GUILESS_MAIN(TestGgufWritten)
#include "test_gguf_written.moc"
