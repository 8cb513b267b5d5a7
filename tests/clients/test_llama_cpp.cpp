// SPDX-License-Identifier: GPL-3.0-or-later
//
// The perplexity that llama.cpp gets from our GGUF files, base and adapter, is ours of the run. Each model is
// loaded by a process of its own, because llama.cpp ends it on what it cannot load.
#include "core/base/atomic_file.h"
#include "core/evaluate/perplexity.h"
#include "tests/support/client.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"
#include "tests/support/wide_model.h"

#include <QStandardPaths>
#include <QtTest>

#include <cmath>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

constexpr Index k_length = 128;
constexpr Index k_max_tokens = 640;
/// Share of the logits' spread: llama.cpp rounds activations to 8 bits before it multiplies with quantized
/// blocks.
constexpr double k_logit_tolerance = 5e-2;

} // namespace

class TestLlamaCpp : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void llama_cpp_agrees_data();
    void llama_cpp_agrees();
    void k_types_agree_data();
    void k_types_agree();
    void mistral_agrees_within_its_window();
    void mistral_has_no_window_there();

private:
    /// What one client is asked for.
    struct Question {
        std::shared_ptr<const Model> model; ///< whose perplexity is expected, with the run's weights
        std::shared_ptr<const Run> run;
        std::string format;
        Index length = k_length;
        std::shared_ptr<const Model> exported; ///< the run's own model; null: the same
    };
    void compare(const Question& question, const fs::path& folder) const;
    Json ask(const fs::path& folder, const Model& model, const std::string& text, Index length,
             const std::vector<test::PromptLogits>& prompts) const;
    static std::shared_ptr<const Model> mistral(const fs::path& folder, bool with_window);

    fs::path text_ = test::sample_folder() / "evaluation.txt";
    QString node_;
};

void TestLlamaCpp::initTestCase()
{
    node_ = QStandardPaths::findExecutable("node");
    if (node_.isEmpty() || qEnvironmentVariableIsEmpty("RANKSCOPE_NODE_MODULES"))
        QSKIP("set RANKSCOPE_NODE_MODULES to the node_modules with node-llama-cpp (npm install "
              "--ignore-scripts "
              "node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1)");
}

void TestLlamaCpp::llama_cpp_agrees_data()
{
    QTest::addColumn<QString>("model");
    QTest::addColumn<QString>("format");
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<int>("rank");
    QTest::addColumn<QString>("setting");
    const auto row = [](const char* model, const char* format, int bits, int group, bool symmetric, int rank,
                        const char* setting) {
        const QString name = QString("%1 as %2, %3 bits in groups of %4%5")
                                 .arg(*model ? model : "stories260k", format)
                                 .arg(bits)
                                 .arg(group)
                                 .arg(*setting ? ", mixed ranks" : "");
        QTest::newRow(name.toUtf8().constData())
            << model << format << bits << group << symmetric << rank << setting;
    };
    row("", "gguf", 4, 32, true, 0, "");
    row("", "gguf-lora", 4, 32, true, 4, "");
    row("", "gguf-lora", 4, 32, false, 4, "*.k_proj:rank=0");
    row("", "gguf-lora", 8, 32, true, 4, "");
    // Groups of 16 fit no block: dense bases, so that only names, order and metadata can differ.
    for (const char* model :
         {"llama-gqa-untied-sharded", "mixtral-moe", "qwen2-bias-bf16", "qwen3-qknorm", "phi3-fused",
          "gemma3-text", "gpt2", "gpt2-hub-names", "gpt-neox-partial-rotary"})
        row(model, "gguf-lora", 4, 16, false, 4, "*.0.*:rank=7");
}

Json TestLlamaCpp::ask(const fs::path& folder, const Model& model, const std::string& text, Index length,
                       const std::vector<test::PromptLogits>& prompts) const
{
    const auto tokenizer = model.tokenizer();
    const auto content = read_text_file(text_);
    if (!tokenizer || !content)
        return {};
    auto ids = (*tokenizer)->encode(*content);
    if (!ids)
        return {};
    ids->resize(std::min<std::size_t>(ids->size(), k_max_tokens));
    Json job;
    const bool pair = fs::exists(folder / "base.gguf");
    job.set("model", (folder / (pair ? "base.gguf" : "model.gguf")).string());
    if (pair)
        job.set("adapter", (folder / "lora.gguf").string());
    job.set("ids", Json::Array(ids->begin(), ids->end()));
    job.set("length", std::int64_t{length});
    job.set("bos",
            (*tokenizer)->prefix().empty() ? Json() : Json(std::int64_t{(*tokenizer)->prefix().front()}));
    job.set("text", text);
    Json lists(Json::Array{});
    for (const test::PromptLogits& prompt : prompts)
        lists.push_back(Json(Json::Array(prompt.ids.begin(), prompt.ids.end())));
    job.set("prompts", std::move(lists));
    const fs::path file = folder.parent_path() / "job.json";
    if (!write_text_file(file, job.dump(), true))
        return {};
    auto answer = test::json_from(
        node_, {RANKSCOPE_SOURCE_DIR "/tests/clients/check_gguf.mjs", QString::fromStdString(file.string())});
    if (!answer) {
        QTest::qFail(answer.error().sentence().c_str(), __FILE__, __LINE__);
        return {};
    }
    return *answer;
}

void TestLlamaCpp::llama_cpp_agrees()
{
    QFETCH(QString, model);
    QFETCH(QString, format);
    QFETCH(int, bits);
    QFETCH(int, group);
    QFETCH(bool, symmetric);
    QFETCH(int, rank);
    QFETCH(QString, setting);
    QTemporaryDir folder;
    const fs::path base(folder.path().toStdString());
    std::shared_ptr<const Model> source = test::sample_model();
    if (!model.isEmpty()) {
        const auto shared = test::shared_folder();
        if (!shared)
            QSKIP(test::k_no_shared);
        // llama.cpp takes models whose name has "phi3" in it for Microsoft's, with their special tokens.
        fs::copy(*shared / "models" / "tiny-arch" / model.toStdString(), base / "tiny",
                 fs::copy_options::recursive);
        source = *Model::open(base / "tiny");
    }
    std::vector<std::string> settings;
    if (!setting.isEmpty())
        settings.push_back(setting.toStdString());
    const test::Given given = {{"bits", std::int64_t{bits}},
                               {"group", std::int64_t{group}},
                               {"symmetric", symmetric},
                               {"rank", std::int64_t{rank}}};
    const auto run = test::quick_run(source, base / "run", "svd_residual", given, settings);
    compare({source, run, format.toStdString(), k_length, nullptr}, base);
}

void TestLlamaCpp::compare(const Question& question, const fs::path& base) const
{
    const auto& [source, run, format, length, exported] = question;
    const Model& model = exported ? *exported : *source;
    const Exporter& exporter = **require_exporter(format);
    const Status done = test::write_and_check(exporter, *run, model, base / "out");
    QVERIFY2(done, qPrintable(test::text_of(done)));

    PerplexityOptions options;
    options.protocol = PerplexityProtocol::Windows;
    options.length = length;
    options.max_tokens = k_max_tokens;
    const auto backend = make_cpu_backend();
    const auto weights = run_weights(source, run);
    const auto ours = perplexity(source, *weights, text_, options, *backend, silent_monitor());
    QVERIFY(ours);
    const auto prompts = test::prompt_logits(*source, *weights, *backend);
    QVERIFY(prompts);
    const std::string text = "One day, Tim saw a big red ball.\n\nHe wanted 12 of them, didn't he?  Yes!";
    const Json answer = ask(base / "out", *source, text, length, *prompts);
    QVERIFY2(!answer.find("error"), answer["error"].string().c_str());
    const double theirs = answer["perplexity"].number();
    qInfo("perplexity %.5f here, %.5f in llama.cpp", ours->perplexity, theirs);
    QCOMPARE(static_cast<std::uint64_t>(answer["targets"].integer()), ours->targets);
    QVERIFY(std::abs(theirs / ours->perplexity - 1.0) < 1e-2);
    const Json::Array* rows = answer["logits"].array_if();
    QVERIFY(rows && rows->size() == prompts->size());
    double worst = 0.0;
    for (std::size_t i = 0; i < rows->size(); ++i)
        worst = std::max(worst, test::logit_distance((*rows)[i], (*prompts)[i].logits));
    qInfo("logits of %zu prompts within %.2g of their spread", rows->size(), worst);
    QVERIFY(worst < k_logit_tolerance);
    // Their tokenizer, made from our metadata, cuts the text as ours does.
    const auto ids = (*source->tokenizer())->encode(text);
    QVERIFY(ids);
    QCOMPARE(answer["tokens"].dump(), Json(Json::Array(ids->begin(), ids->end())).dump());
}

void TestLlamaCpp::k_types_agree_data()
{
    QTest::addColumn<int>("bits");
    for (int bits = 2; bits <= 6; ++bits)
        QTest::addRow("Q%d_K and an adapter", bits) << bits;
}

void TestLlamaCpp::k_types_agree()
{
    QFETCH(int, bits);
    QTemporaryDir folder;
    const fs::path base(folder.path().toStdString());
    QVERIFY(test::write_wide_model(base / "wide"));
    const auto source = Model::open(base / "wide");
    QVERIFY(source);
    const auto run = test::quick_run(
        *source, base / "run", "svd_residual",
        {{"codebook", std::string("kquant")}, {"bits", std::int64_t{bits}}, {"rank", std::int64_t{8}}});
    compare({*source, run, "gguf-lora", k_length, nullptr}, base);
    const Json report = *Json::read(base / "out" / "rankscope.json");
    for (const LinearLayer& layer : (*source)->linears())
        QCOMPARE(report["layers"][layer.name]["stored_as"].string(), "Q" + std::to_string(bits) + "_K");
}

std::shared_ptr<const Model> TestLlamaCpp::mistral(const fs::path& folder, bool with_window)
{
    const auto shared = test::shared_folder();
    if (!shared)
        return nullptr;
    fs::copy(*shared / "models" / "tiny-arch" / "mistral-sliding-fp16", folder, fs::copy_options::recursive);
    if (!with_window) {
        auto config = Json::read(folder / "config.json");
        if (!config)
            return nullptr;
        config->set("sliding_window", Json());
        fs::permissions(folder, fs::perms::owner_all);
        if (!write_text_file(folder / "config.json", config->dump(2), true))
            return nullptr;
    }
    auto model = Model::open(folder);
    return model ? *model : nullptr;
}

void TestLlamaCpp::mistral_agrees_within_its_window()
{
    QTemporaryDir folder;
    const fs::path base(folder.path().toStdString());
    const auto source = mistral(base / "sliding", true);
    if (!source)
        QSKIP(test::k_no_shared);
    const auto run =
        test::quick_run(source, base / "run", "svd_residual",
                        {{"bits", std::int64_t{4}}, {"group", std::int64_t{16}}, {"rank", std::int64_t{4}}});
    compare({source, run, "gguf-lora", source->config().sliding_window, nullptr}, base);
}

/// Longer texts: llama.cpp lets its family `llama`, which Mistral belongs to, see all tokens before one.
void TestLlamaCpp::mistral_has_no_window_there()
{
    QTemporaryDir folder;
    const fs::path base(folder.path().toStdString());
    const auto source = mistral(base / "sliding", true);
    const auto open = mistral(base / "open", false);
    if (!source || !open)
        QSKIP(test::k_no_shared);
    const auto run =
        test::quick_run(source, base / "run", "svd_residual",
                        {{"bits", std::int64_t{4}}, {"group", std::int64_t{16}}, {"rank", std::int64_t{4}}});
    compare({open, run, "gguf-lora", k_length, source}, base);
}

QTEST_GUILESS_MAIN(TestLlamaCpp)
#include "test_llama_cpp.moc"
