// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/json.h"
#include "core/evaluate/text_comparison.h"
#include "core/run/run.h"
#include "tests/support/sample_model.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <algorithm>
#include <cmath>

using namespace rankscope;
namespace fs = std::filesystem;

/// The sample against itself and against a run of it.
class TestTextComparison : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void a_model_equals_itself();
    void figures_match_direct_logits();
    void perplexities_are_those_measured_alone_data();
    void perplexities_are_those_measured_alone();
    void words_of_the_text();
    void budget_does_not_change_the_figures();
    void stages_are_named();
    void can_be_cancelled();
    void other_vocabulary();

private:
    Result<TextComparison> compare(const PerplexityOptions& options, Monitor& monitor = silent_monitor())
    {
        return compare_on_text({model_, weights_.get()}, {model_, replaced_.get()}, text_, options, *backend_,
                               monitor);
    }
    static PerplexityOptions options_of(Index length, Index max_tokens)
    {
        PerplexityOptions options;
        options.length = length;
        options.max_tokens = max_tokens;
        return options;
    }

    QTemporaryDir folder_;
    fs::path text_ = test::sample_folder() / "evaluation.txt";
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<WeightSource> weights_ = checkpoint_weights(model_);
    std::unique_ptr<WeightSource> replaced_;
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestTextComparison::initTestCase()
{
    const fs::path run_folder = fs::path(folder_.path().toStdString()) / "run";
    VERIFY_OK(
        Run::execute(model_, test::sample_plan("rtn"), nullptr, run_folder, {}, *backend_, silent_monitor()));
    const auto run = Run::open(run_folder);
    VERIFY_OK(run);
    replaced_ = run_weights(model_, *run);
}

void TestTextComparison::a_model_equals_itself()
{
    const auto result = compare_on_text({model_, weights_.get()}, {model_, weights_.get()}, text_,
                                        options_of(64, 300), *backend_, silent_monitor());
    VERIFY_OK(result);
    QCOMPARE(result->original.perplexity, result->compressed.perplexity);
    QCOMPARE(result->divergence.same_top, 1.0);
    QVERIFY(result->divergence.mean_kl < 1e-12 && result->divergence.kl_99 < 1e-12);
}

void TestTextComparison::figures_match_direct_logits()
{
    constexpr Index k_length = 50;
    const auto content = read_text_file(text_);
    const auto tokenizer = model_->tokenizer();
    QVERIFY(content && tokenizer);
    auto ids = (*tokenizer)->encode(*content);
    QVERIFY(ids);
    ids->insert(ids->begin(), (*tokenizer)->prefix().front());
    std::vector<double> divergences;
    double same = 0.0;
    for (Index window = 0; window < 4; ++window) {
        const auto tokens = std::span(*ids).subspan(static_cast<std::size_t>(window * k_length), k_length);
        const auto before = logits(*model_, *weights_, tokens, *backend_, silent_monitor());
        const auto after = logits(*model_, *replaced_, tokens, *backend_, silent_monitor());
        QVERIFY(before && after);
        for (Index row = 0; row + 1 < k_length; ++row) {
            const Eigen::ArrayXd p = before->row(row).transpose().cast<double>().array();
            const Eigen::ArrayXd q = after->row(row).transpose().cast<double>().array();
            const Eigen::ArrayXd log_p = p - std::log(p.exp().sum());
            const Eigen::ArrayXd log_q = q - std::log(q.exp().sum());
            divergences.push_back((log_p.exp() * (log_p - log_q)).sum());
            Index top = 0;
            Index other = 0;
            p.maxCoeff(&top);
            q.maxCoeff(&other);
            same += top == other ? 1.0 : 0.0;
        }
    }
    const auto count = static_cast<double>(divergences.size());
    double sum = 0.0;
    for (const double kl : divergences)
        sum += kl;
    std::sort(divergences.begin(), divergences.end());

    const auto result = compare(options_of(k_length, 4 * k_length - 1)); // one BOS makes four windows
    VERIFY_OK(result);
    QCOMPARE(result->compressed.targets, static_cast<std::uint64_t>(divergences.size()));
    QVERIFY(std::abs(result->divergence.mean_kl / (sum / count) - 1.0) < 1e-4);
    QVERIFY(std::abs(result->divergence.kl_99 / divergences[195 - 1] - 1.0) < 1e-3); // ⌈0.99 · 196⌉ = 195
    QCOMPARE(result->divergence.same_top, same / count);
    QVERIFY(same / count < 1.0 && sum / count > 0.1);
}

void TestTextComparison::perplexities_are_those_measured_alone_data()
{
    QTest::addColumn<bool>("gptq");
    QTest::addColumn<int>("stride");
    QTest::newRow("gptq") << true << 0;
    QTest::newRow("gptq, overlapping") << true << 20;
    QTest::newRow("windows") << false << 0;
}

void TestTextComparison::perplexities_are_those_measured_alone()
{
    QFETCH(bool, gptq);
    QFETCH(int, stride);
    PerplexityOptions options = options_of(64, 400);
    options.protocol = gptq ? PerplexityProtocol::Gptq : PerplexityProtocol::Windows;
    options.stride = stride;
    const auto both = compare(options);
    const auto before = perplexity(model_, *weights_, text_, options, *backend_, silent_monitor());
    const auto after = perplexity(model_, *replaced_, text_, options, *backend_, silent_monitor());
    VERIFY_OK(both);
    VERIFY_OK(before);
    VERIFY_OK(after);
    QCOMPARE(both->original.perplexity, before->perplexity);
    QCOMPARE(both->original.standard_error, before->standard_error);
    QCOMPARE(both->compressed.perplexity, after->perplexity);
    QCOMPARE(both->compressed.targets, after->targets);
    QVERIFY(both->divergence.standard_error > 0.0);
}

void TestTextComparison::words_of_the_text()
{
    const fs::path file = fs::path(folder_.path().toStdString()) / "words.txt";
    QFile text(QString::fromStdString(file.string()));
    QVERIFY(text.open(QIODevice::WriteOnly));
    text.write("One day,  Tom saw\na big dog. The dog ran.\n");
    text.close();
    PerplexityOptions options = options_of(8, 0);
    options.stride = 1; // every token is covered
    const auto result = perplexity(model_, *weights_, file, options, *backend_, silent_monitor());
    VERIFY_OK(result);
    QCOMPARE(result->words, std::uint64_t{10});
    QCOMPARE(result->word_perplexity(), std::exp(result->nll_sum / 10.0));
}

void TestTextComparison::budget_does_not_change_the_figures()
{
    const auto whole = compare(options_of(128, 2000));
    PerplexityOptions tight = options_of(128, 2000);
    tight.memory_budget_bytes = 6 << 20; // not enough for two sets of hidden states beside a block
    const auto scratch = compare(tight);
    VERIFY_OK(whole);
    VERIFY_OK(scratch);
    QCOMPARE(scratch->divergence.mean_kl, whole->divergence.mean_kl);
    tight.memory_budget_bytes = 64 << 10;
    const auto refused = compare(tight);
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::NoSpace);
}

void TestTextComparison::stages_are_named()
{
    test::TestMonitor monitor;
    VERIFY_OK(compare(options_of(64, 300), monitor));
    const auto& stages = monitor.stages();
    const auto has = [&](const char* text) {
        return std::any_of(stages.begin(), stages.end(),
                           [&](const std::string& stage) { return stage.find(text) != std::string::npos; });
    };
    QVERIFY(has("original: block 1") && has("compressed: block 5") && has("logits"));
    QVERIFY(monitor.within_total());
}

void TestTextComparison::can_be_cancelled()
{
    test::TestMonitor monitor(3);
    const auto result = compare(options_of(64, 300), monitor);
    QVERIFY(!result);
    QCOMPARE(result.error().kind, ErrorKind::Cancelled);
}

void TestTextComparison::other_vocabulary()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto other = Model::open(*shared / "models" / "babyllama-105");
    VERIFY_OK(other);
    const auto weights = checkpoint_weights(*other);
    const auto result = compare_on_text({model_, weights_.get()}, {*other, weights.get()}, text_,
                                        options_of(64, 300), *backend_, silent_monitor());
    QVERIFY(!result);
    QCOMPARE(result.error().kind, ErrorKind::BadInput);
    QVERIFY(result.error().sentence().find("105") != std::string::npos);
}

QTEST_GUILESS_MAIN(TestTextComparison)
#include "test_text_comparison.moc"
