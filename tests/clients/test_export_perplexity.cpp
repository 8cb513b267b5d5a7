// SPDX-License-Identifier: GPL-3.0-or-later
//
// The perplexity that transformers and PEFT get from our folders is ours of the run. One Python process
// measures all of them, because starting it costs more than the models do.
#include "core/base/atomic_file.h"
#include "core/evaluate/perplexity.h"
#include "tests/support/client.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <cmath>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

constexpr Index k_length = 128;
constexpr Index k_max_tokens = 1200;

/// One export that a client is to load.
struct Case {
    std::string name;
    std::string model; ///< folder of tiny-arch or of models; empty: the sample
    std::string format;
    test::Given plan;
    std::vector<std::string> settings;
    double tolerance = 5e-3;       ///< relative, of the perplexity
    double logit_tolerance = 1e-3; ///< of the logits' spread, largest minus smallest
};

test::Given plan(std::int64_t bits, std::int64_t group, bool symmetric, std::int64_t rank)
{
    return {{"bits", bits}, {"group", group}, {"symmetric", symmetric}, {"rank", rank}};
}

std::vector<Case> all_cases()
{
    std::vector<Case> cases;
    const auto add = [&](const char* model, const char* format, test::Given given,
                         std::vector<std::string> settings = {}) {
        const std::string name = std::string(*model ? model : "stories260k") + " as " + format
                                 + (settings.empty() ? "" : ", mixed");
        // Dense values are the run's; packed ones have scales of 16 bits.
        const std::string_view kind = format;
        const double tolerance = kind == "compressed-tensors" || kind == "gptq" ? 1e-2 : 5e-3;
        // bfloat16 checkpoints hold Q + L·R with 8 bits of mantissa
        const bool coarse = std::string_view(model).find("bf16") != std::string_view::npos;
        const double logits = kind != "hf" ? 5e-3 : coarse ? 2e-2 : 1e-5;
        cases.push_back({name, model, format, std::move(given), std::move(settings), tolerance, logits});
    };
    add("", "hf", plan(3, 64, false, 4));
    add("", "hf-qlr", plan(3, 64, false, 4));
    add("", "peft", plan(3, 64, false, 4));
    add("", "peft", plan(4, 32, false, 4),
        {"*.2.*_proj:rank=7", "*.k_proj:rank=0", "*.1.mlp.up_proj:rank=0", "*.3.mlp.*:include=false"});
    for (const char* model : {"llama-gqa-tied", "qwen2-bias-bf16", "gpt2", "gpt2-hub-names", "gemma2-softcap",
                              "gemma3-text", "gpt-neox-partial-rotary", "phi3-fused", "opt", "babyllama-105"})
        add(model, "peft", plan(3, 32, false, 4));
    for (const char* model :
         {"llama-gqa-tied", "qwen2-bias-bf16", "gemma2-softcap", "gemma3-text", "gpt2", "babyllama-105"})
        add(model, "hf", plan(3, 32, false, 4));
    // The loader of hf-qlr puts modules in the place of Linear, which GPT-2 has none of.
    for (const char* model :
         {"llama-gqa-tied", "llama-gqa-untied-sharded", "qwen2-bias-bf16", "gemma2-softcap", "gemma3-text",
          "phi3-fused", "gpt-neox-partial-rotary", "opt", "babyllama-105"})
        add(model, "hf-qlr", plan(3, 32, false, 4));
    const char* ct = "compressed-tensors";
    add("", ct, plan(4, 0, true, 4));
    for (const char* model : {"llama-gqa-untied-sharded", "qwen2-bias-bf16", "qwen3-qknorm",
                              "gpt-neox-partial-rotary", "phi3-fused", "opt"})
        add(model, ct, plan(4, 32, false, 4));
    add("llama-gqa-tied", ct, plan(3, 32, false, 4),
        {"*.k_proj:rank=0,symmetric=true,bits=6", "*.1.mlp.*:rank=9"});
    for (const bool symmetric : {true, false}) { // checkpoint_format gptq and gptq_v2
        add("llama-gqa-untied-sharded", "gptq", plan(4, 32, symmetric, 4));
        cases.back().name += symmetric ? ", v1" : ", v2";
    }
    return cases;
}

} // namespace

class TestExportPerplexity : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void client_agrees_data();
    void client_agrees();

private:
    struct Outcome {
        double ours = 0.0;
        std::uint64_t targets = 0;
        std::int64_t adapted_layers = 0; ///< with L·R
        std::vector<test::PromptLogits> prompts;
    };
    static void compare_logits(const Json& theirs, const Case& made, const Outcome& ours);
    Result<Outcome> prepare(const Case& made, const fs::path& folder, Json& jobs) const;

    fs::path text_ = test::sample_folder() / "evaluation.txt";
    std::vector<Case> cases_;
    std::map<std::string, Outcome> outcomes_;
    Json answers_;
    QTemporaryDir folder_;
};

void TestExportPerplexity::compare_logits(const Json& theirs, const Case& made, const Outcome& ours)
{
    QVERIFY(theirs.array_if() && theirs.array_if()->size() == ours.prompts.size());
    double worst = 0.0;
    for (std::size_t i = 0; i < ours.prompts.size(); ++i) {
        const Json& answer = (*theirs.array_if())[i];
        const auto& ids = ours.prompts[i].ids;
        QCOMPARE(answer["ids"].dump(), Json(Json::Array(ids.begin(), ids.end())).dump());
        worst = std::max(worst, test::logit_distance(answer["logits"], ours.prompts[i].logits));
    }
    qInfo("%s: logits of %zu prompts within %.2g of their spread", made.name.c_str(), ours.prompts.size(),
          worst);
    QVERIFY(worst < made.logit_tolerance);
}

Result<TestExportPerplexity::Outcome> TestExportPerplexity::prepare(const Case& made, const fs::path& folder,
                                                                    Json& jobs) const
{
    std::shared_ptr<const Model> model = test::sample_model();
    if (!made.model.empty()) {
        const fs::path models = *test::shared_folder() / "models";
        auto opened =
            Model::open((fs::exists(models / made.model) ? models : models / "tiny-arch") / made.model);
        if (!opened)
            return opened.error();
        model = *opened;
    }
    const auto run = test::quick_run(model, folder / "run", "svd_residual", made.plan, made.settings);
    const Exporter& exporter = **require_exporter(made.format);
    if (auto written = exporter.write(*run, *model, folder / "export", {}, silent_monitor()); !written)
        return written.error();
    if (auto checked = exporter.check(*run, *model, folder / "export", silent_monitor()); !checked)
        return checked.error();
    PerplexityOptions options;
    options.protocol = PerplexityProtocol::Windows;
    options.length = k_length;
    options.max_tokens = k_max_tokens;
    const auto backend = make_cpu_backend();
    const auto weights = run_weights(model, run);
    auto ours = perplexity(model, *weights, text_, options, *backend, silent_monitor());
    if (!ours)
        return ours.error();
    Json job;
    job.set("name", made.name);
    job.set("folder", (folder / "export").string());
    if (fs::exists(folder / "export" / "adapter"))
        job.set("adapter", (folder / "export" / "adapter").string());
    job.set("text", text_.string());
    job.set("length", std::int64_t{k_length});
    job.set("max_tokens", std::int64_t{k_max_tokens});
    Json texts(Json::Array{});
    for (const char* prompt : test::k_prompts)
        texts.push_back(std::string(prompt));
    job.set("prompts", std::move(texts));
    jobs.push_back(std::move(job));
    auto prompts = test::prompt_logits(*model, *weights, *backend);
    if (!prompts)
        return prompts.error();
    Outcome outcome{ours->perplexity, ours->targets, 0, std::move(*prompts)};
    for (const LayerResult& result : run->results())
        outcome.adapted_layers += run->decomposition(result.layer)->low_rank.rank() > 0 ? 1 : 0;
    return outcome;
}

void TestExportPerplexity::initTestCase()
{
    if (test::client_python().isEmpty())
        QSKIP(test::k_no_client);
    const bool shared = test::shared_folder().has_value();
    Json jobs;
    for (Case& made : all_cases()) {
        if (!made.model.empty() && !shared)
            continue;
        const fs::path folder = fs::path(folder_.path().toStdString()) / std::to_string(cases_.size());
        fs::create_directories(folder);
        auto outcome = prepare(made, folder, jobs);
        QVERIFY2(outcome, outcome ? "" : (made.name + ": " + outcome.error().sentence()).c_str());
        outcomes_[made.name] = *outcome;
        cases_.push_back(std::move(made));
    }
    const fs::path file = fs::path(folder_.path().toStdString()) / "jobs.json";
    QVERIFY(write_text_file(file, jobs.dump(), false));
    const auto answers =
        test::json_from(test::client_python(), {RANKSCOPE_SOURCE_DIR "/tests/clients/check_exports.py",
                                                QString::fromStdString(file.string())});
    QVERIFY2(answers, answers ? "" : answers.error().sentence().c_str());
    answers_ = *answers;
}

void TestExportPerplexity::client_agrees_data()
{
    QTest::addColumn<int>("index");
    for (std::size_t i = 0; i < cases_.size(); ++i)
        QTest::newRow(cases_[i].name.c_str()) << static_cast<int>(i);
}

void TestExportPerplexity::client_agrees()
{
    QFETCH(int, index);
    const Case& made = cases_[static_cast<std::size_t>(index)];
    QVERIFY(answers_.array_if() && answers_.array_if()->size() == cases_.size());
    const Json& answer = (*answers_.array_if())[static_cast<std::size_t>(index)];
    if (made.format == "gptq" && answer["error"].string().starts_with("ImportError"))
        QSKIP("transformers loads this format with gptqmodel 7.7 and optimum 2.3, which this Python lacks");
    QVERIFY2(!answer.find("error"), answer["error"].string().c_str());
    const Outcome& ours = outcomes_[made.name];
    const double theirs = answer["perplexity"].number();
    qInfo("%s: perplexity %.5f here, %.5f by the client", made.name.c_str(), ours.ours, theirs);
    QCOMPARE(static_cast<std::uint64_t>(answer["targets"].integer()), ours.targets);
    compare_logits(answer["prompts"], made, ours);
    if (made.format != "hf" && made.format != "hf-qlr")
        QCOMPARE(answer["adapted_layers"].integer(-1), ours.adapted_layers);
    QVERIFY(std::abs(theirs / ours.ours - 1.0) < made.tolerance);
}

QTEST_GUILESS_MAIN(TestExportPerplexity)
#include "test_export_perplexity.moc"
