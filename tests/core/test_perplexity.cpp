// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/calibration/streaming_pass.h"
#include "core/evaluate/perplexity.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <cstring>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// −ln p of the targets from `first_target` on, straight from the logits of one sequence.
double direct_loss(const Matrix& logits, std::span<const TokenId> ids, Index first_target)
{
    double sum = 0.0;
    for (Index target = first_target; target < static_cast<Index>(ids.size()); ++target) {
        const Eigen::ArrayXd row = logits.row(target - 1).transpose().cast<double>().array();
        const double top = row.maxCoeff();
        sum += top + std::log((row - top).exp().sum()) - row[ids[static_cast<std::size_t>(target)]];
    }
    return sum;
}

} // namespace

class TestPerplexity : public QObject {
    Q_OBJECT

private slots:
    void equals_references_data();
    void equals_references();
    void follows_the_golden_rule();
    void standard_error_is_that_of_the_mean();
    void both_protocols_equal_direct_logits_data();
    void both_protocols_equal_direct_logits();
    void limits_tokens();
    void budget_does_not_change_the_figure();
    void refuses_bad_requests();
    void refuses_logits_that_overflow();
    void can_be_cancelled();
    void names_protocols();

private:
    Result<PerplexityResult> measure(const fs::path& text, const PerplexityOptions& options,
                                     Monitor& monitor = silent_monitor())
    {
        return perplexity(model_, *weights_, text, options, *backend_, monitor);
    }
    fs::path text_ = test::sample_folder() / "evaluation.txt";
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<WeightSource> weights_ = checkpoint_weights(model_);
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestPerplexity::equals_references_data()
{
    QTest::addColumn<QString>("model");
    QTest::addColumn<QString>("text");
    QTest::addColumn<int>("max_tokens");
    QTest::addColumn<int>("targets");
    QTest::addColumn<double>("expected");
    QTest::newRow("stories260k, real") << "stories260k"
                                       << "real-sample.txt" << 0 << 1785 << 4.4902;
    QTest::newRow("stories260k, generated") << "stories260k"
                                            << "generated-stories260k.txt" << 64 * 255 << 16320 << 4.8789;
    QTest::newRow("babyllama-105, real") << "babyllama-105"
                                         << "real-sample.txt" << 0 << 3570 << 2.3370;
    QTest::newRow("babyllama-105, generated") << "babyllama-105"
                                              << "generated-stories260k.txt" << 64 * 255 << 16320 << 2.4898;
}

void TestPerplexity::equals_references()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    QFETCH(QString, model);
    QFETCH(QString, text);
    QFETCH(int, max_tokens);
    QFETCH(int, targets);
    QFETCH(double, expected);
    const auto opened = Model::open(*shared / "models" / model.toStdString());
    QVERIFY2(opened, qPrintable(opened ? QString() : QString::fromStdString(opened.error().sentence())));
    PerplexityOptions options;
    options.protocol = PerplexityProtocol::Windows;
    options.length = 256;
    options.max_tokens = max_tokens;
    const auto weights = checkpoint_weights(*opened);
    const auto result = perplexity(*opened, *weights, *shared / "data" / "tinystories" / text.toStdString(),
                                   options, *backend_, silent_monitor());
    QVERIFY2(result, qPrintable(result ? QString() : QString::fromStdString(result.error().sentence())));
    QCOMPARE(result->targets, static_cast<std::uint64_t>(targets));
    QCOMPARE(result->windows, Index{targets / 255});
    const double deviation = std::abs(result->perplexity / expected - 1.0);
    QVERIFY2(deviation < 1e-3, qPrintable(QString::number(result->perplexity, 'g', 10)));
    QVERIFY(result->standard_error > 0.0 && result->standard_error < result->perplexity);
    QVERIFY(result->seconds > 0.0);
}

void TestPerplexity::follows_the_golden_rule()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    const auto reader = CheckpointReader::open(*shared / "golden" / "learned" / "evaluate_ppl.safetensors");
    const auto json = Json::read(*shared / "golden" / "learned" / "evaluate_ppl.json");
    QVERIFY(reader && json);
    const auto view = (*reader)->view("nll");
    QVERIFY(view && view->dtype == DType::F64);
    MatrixD losses(view->shape[0], view->shape[1]);
    std::memcpy(losses.data(), view->bytes.data(), view->bytes.size());
    std::vector<WindowLoss> windows;
    for (Index row = 0; row < losses.rows(); ++row)
        windows.push_back({losses.row(row).sum(), losses.cols()});
    PerplexityResult result;
    summarize(windows, result);
    const double expected = (*json)["scalars"]["gptq"].number();
    QVERIFY(std::abs(result.perplexity / expected - 1.0) < 1e-9);
    QCOMPARE(result.targets, std::uint64_t{45});
}

void TestPerplexity::standard_error_is_that_of_the_mean()
{
    PerplexityResult result;
    summarize({}, result);
    QCOMPARE(result.targets, std::uint64_t{0});
    const WindowLoss one[] = {{20.0, 10}};
    summarize(one, result);
    QCOMPARE(result.perplexity, std::exp(2.0));
    QCOMPARE(result.standard_error, 0.0);
    const WindowLoss three[] = {{10.0, 10}, {20.0, 10}, {30.0, 10}}; // means 1, 2, 3: deviation 1, error 1/√3
    summarize(three, result);
    QCOMPARE(result.perplexity, std::exp(2.0));
    QVERIFY(std::abs(result.standard_error - std::exp(2.0) / std::sqrt(3.0)) < 1e-12);
}

void TestPerplexity::both_protocols_equal_direct_logits_data()
{
    QTest::addColumn<bool>("gptq");
    QTest::addColumn<int>("length");
    QTest::addColumn<int>("stride");
    for (const bool gptq : {true, false}) {
        const char* name = gptq ? "gptq" : "windows";
        QTest::addRow("%s, own length", name) << gptq << 100 << 0;
        QTest::addRow("%s, stride is the length", name) << gptq << 64 << 64;
        QTest::addRow("%s, half overlap", name) << gptq << 128 << 64;
        QTest::addRow("%s, nearly all overlap", name) << gptq << 300 << 7;
    }
}

void TestPerplexity::both_protocols_equal_direct_logits()
{
    QFETCH(bool, gptq);
    QFETCH(int, length);
    QFETCH(int, stride);
    const auto content = read_text_file(text_);
    const auto tokenizer = model_->tokenizer();
    QVERIFY(content && tokenizer);
    auto ids = (*tokenizer)->encode(*content);
    QVERIFY(ids);
    ids->resize(500);
    PerplexityOptions options;
    options.protocol = gptq ? PerplexityProtocol::Gptq : PerplexityProtocol::Windows;
    options.length = length;
    options.stride = stride;
    options.max_tokens = 500;
    const auto result = measure(text_, options);
    QVERIFY2(result, qPrintable(result ? QString() : QString::fromStdString(result.error().sentence())));

    const TokenId bos = (*tokenizer)->prefix().front();
    std::vector<TokenId> stream(*ids);
    if (gptq)
        stream.insert(stream.begin(), bos);
    const int content_length = gptq ? length : length - 1;
    const int step = stride == 0 ? content_length : std::min(stride, content_length);
    double sum = 0.0;
    std::size_t targets = 0;
    Index windows = 0;
    for (int first = 0; first + content_length <= static_cast<int>(stream.size()); first += step, ++windows) {
        std::vector<TokenId> window(stream.begin() + first, stream.begin() + first + content_length);
        if (!gptq)
            window.insert(window.begin(), bos);
        const auto rows = logits(*model_, *weights_, window, *backend_, silent_monitor());
        QVERIFY(rows);
        const Index first_target = first == 0 ? 1 : std::max(1, length - step);
        sum += direct_loss(*rows, window, first_target);
        targets += window.size() - static_cast<std::size_t>(first_target);
    }
    QCOMPARE(result->windows, windows);
    QCOMPARE(result->targets, static_cast<std::uint64_t>(targets));
    QVERIFY2(std::abs(result->nll_sum / sum - 1.0) < 1e-5,
             qPrintable(QString::number(result->nll_sum / sum - 1.0)));
    QCOMPARE(result->stride, Index{step});
    QCOMPARE(result->length, Index{length});
    QCOMPARE(result->text_file, std::string("evaluation.txt"));
    QCOMPARE(result->text_hash, sha256_hex(*content));
}

void TestPerplexity::limits_tokens()
{
    PerplexityOptions options;
    options.length = 50;
    options.max_tokens = 120; // with the BOS 121: two chunks
    auto result = measure(text_, options);
    QVERIFY(result);
    QCOMPARE(result->windows, Index{2});
    options.max_tokens = 1 << 30;
    const auto all = measure(text_, options);
    options.max_tokens = 0;
    result = measure(text_, options);
    QVERIFY(all && result);
    QCOMPARE(all->nll_sum, result->nll_sum);
    options.length = 0;
    options.max_tokens = 0;
    result = measure(text_, options);
    QVERIFY(result);
    QCOMPARE(result->length, Index{512}); // the sample's context
}

void TestPerplexity::budget_does_not_change_the_figure()
{
    PerplexityOptions options;
    options.length = 64;
    const auto free = measure(text_, options);
    QVERIFY(free);
    const PassMemory memory = pass_memory(*model_, free->windows, 64);
    Result<PerplexityResult> tight = internal_error("not tried");
    for (std::uint64_t budget = memory.block_weights; !tight && budget < (std::uint64_t{1} << 30);
         budget += memory.hidden / 2) {
        options.memory_budget_bytes = budget;
        tight = measure(text_, options);
        QVERIFY(tight || tight.error().kind == ErrorKind::NoSpace);
    }
    QVERIFY(tight);
    QCOMPARE(tight->nll_sum, free->nll_sum);
}

void TestPerplexity::refuses_bad_requests()
{
    const QTemporaryDir folder;
    const fs::path text = fs::path(folder.path().toStdString()) / "short.txt";
    QVERIFY(write_text_file(text, "Once upon a time", false));
    PerplexityOptions options;
    options.length = 200;
    for (const auto protocol : {PerplexityProtocol::Gptq, PerplexityProtocol::Windows}) {
        options.protocol = protocol;
        const auto result = measure(text, options);
        QVERIFY(!result);
        QCOMPARE(result.error().kind, ErrorKind::BadInput);
        QVERIFY(result.error().sentence().find("199") != std::string::npos);
    }
    QVERIFY(write_text_file(text, "caf\xc3(", true));
    QCOMPARE(measure(text, options).error().kind, ErrorKind::BadInput);
    QVERIFY(write_text_file(text, "", true));
    QCOMPARE(measure(text, options).error().kind, ErrorKind::BadInput);
    QCOMPARE(measure("/nowhere.txt", options).error().kind, ErrorKind::Io);
    options.stride = 201;
    QCOMPARE(measure(text_, options).error().kind, ErrorKind::Usage);
    options.stride = -1;
    QCOMPARE(measure(text_, options).error().kind, ErrorKind::Usage);
    options.stride = 0;
    options.max_tokens = -1;
    QCOMPARE(measure(text_, options).error().kind, ErrorKind::Usage);
    options.max_tokens = 0;
    options.length = 513;
    QCOMPARE(measure(text_, options).error().kind, ErrorKind::Usage);
}

void TestPerplexity::refuses_logits_that_overflow()
{
    const QTemporaryDir folder;
    const fs::path broken = fs::path(folder.path().toStdString()) / "model";
    QVERIFY(test::copy_sample(broken, [](std::string_view name, Matrix& values) {
        if (name == "model.norm.weight")
            values.setConstant(3e38f);
    }));
    const auto model = Model::open(broken);
    QVERIFY(model);
    PerplexityOptions options;
    options.length = 64;
    const auto result =
        perplexity(*model, *checkpoint_weights(*model), text_, options, *backend_, silent_monitor());
    QVERIFY(!result);
    QCOMPARE(result.error().kind, ErrorKind::BadInput);
    QVERIFY(result.error().sentence().find("not finite") != std::string::npos);
}

void TestPerplexity::can_be_cancelled()
{
    PerplexityOptions options;
    options.length = 64;
    test::TestMonitor whole;
    QVERIFY(measure(text_, options, whole));
    QVERIFY(whole.within_total());
    for (const std::int64_t after : {std::int64_t{0}, whole.reports() / 2, whole.reports() - 2}) {
        test::TestMonitor monitor(after);
        const auto result = measure(text_, options, monitor);
        QVERIFY(!result);
        QCOMPARE(result.error().kind, ErrorKind::Cancelled);
    }
}

void TestPerplexity::names_protocols()
{
    for (const auto protocol : {PerplexityProtocol::Gptq, PerplexityProtocol::Windows})
        QCOMPARE(*perplexity_protocol(id(protocol)), protocol);
    const auto unknown = perplexity_protocol("mean");
    QVERIFY(!unknown);
    QCOMPARE(unknown.error().kind, ErrorKind::Usage);
}

QTEST_GUILESS_MAIN(TestPerplexity)
#include "test_perplexity.moc"
