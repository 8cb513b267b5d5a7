// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/evaluate/text_comparison.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;
namespace fs = std::filesystem;

/// Evaluations that stop in the middle and go on from the windows that are done.
class TestEvaluationResume : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void perplexity_goes_on();
    void comparison_goes_on();
    void other_evaluations_are_refused_data();
    void other_evaluations_are_refused();
    void damaged_states_are_refused_data();
    void damaged_states_are_refused();

private:
    PerplexityOptions options(const fs::path& state = {}) const
    {
        PerplexityOptions result;
        result.length = 64;
        result.stride = 48; // windows after the first one count less than the first
        result.max_tokens = 40'000;
        result.state = state;
        result.state_key = "the sample";
        return result;
    }
    Result<PerplexityResult> measure(const PerplexityOptions& how, Monitor& monitor = silent_monitor()) const
    {
        return perplexity(model_, *weights_, text_, how, *backend_, monitor);
    }
    Result<TextComparison> compare(const PerplexityOptions& how, Monitor& monitor = silent_monitor()) const
    {
        return compare_on_text({model_, weights_.get()}, {model_, rounded_.get()}, text_, how, *backend_,
                               monitor);
    }
    fs::path place(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }

    QTemporaryDir folder_;
    fs::path text_ = test::sample_folder() / "calibration.txt";
    std::shared_ptr<const Model> model_;
    std::unique_ptr<WeightSource> weights_;
    std::unique_ptr<WeightSource> rounded_;
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    std::string state_; ///< of a perplexity that was stopped
};

void TestEvaluationResume::initTestCase()
{
    model_ = test::sample_model();
    weights_ = checkpoint_weights(model_);
    rounded_ = with_quantized_activations(checkpoint_weights(model_), {4, 0.9});
}

void TestEvaluationResume::perplexity_goes_on()
{
    const auto whole = measure(options());
    VERIFY_OK(whole);
    test::TestMonitor counting;
    const auto uninterrupted = measure(options(place("state")), counting);
    VERIFY_OK(uninterrupted);
    QVERIFY(!fs::exists(place("state"))); // it has served
    QCOMPARE(uninterrupted->nll_sum, whole->nll_sum);
    QCOMPARE(uninterrupted->standard_error, whole->standard_error);
    QCOMPARE(uninterrupted->windows, whole->windows);

    int stops = 0;
    for (int stop = 0; stop < 3;
         ++stop) { // each gets two fifths of the way further: some get behind a stretch
        test::TestMonitor stopping(counting.reports() * 2 / 5);
        const auto stopped = measure(options(place("state")), stopping);
        if (stopped)
            break;
        QCOMPARE(stopped.error().kind, ErrorKind::Cancelled);
        ++stops;
        if (fs::exists(place("state")))
            state_ = *read_text_file(place("state"));
    }
    QVERIFY(stops > 0 && !state_.empty());
    test::TestMonitor rest;
    if (fs::exists(place("state"))) {
        const auto resumed = measure(options(place("state")), rest);
        VERIFY_OK(resumed);
        QVERIFY2(rest.reports() < counting.reports(), "nothing was taken from the file");
        QCOMPARE(resumed->nll_sum, whole->nll_sum);
        QCOMPARE(resumed->targets, whole->targets);
        QCOMPARE(resumed->perplexity, whole->perplexity);
        QCOMPARE(resumed->standard_error, whole->standard_error);
    }
    QVERIFY(!fs::exists(place("state")));
}

void TestEvaluationResume::comparison_goes_on()
{
    const auto whole = compare(options());
    VERIFY_OK(whole);
    test::TestMonitor counting;
    VERIFY_OK(compare(options(place("both")), counting));
    test::TestMonitor stopping(counting.reports() / 2);
    const auto stopped = compare(options(place("both")), stopping);
    QVERIFY(!stopped);
    QVERIFY(fs::exists(place("both")));
    const auto resumed = compare(options(place("both")));
    VERIFY_OK(resumed);
    QCOMPARE(resumed->original.nll_sum, whole->original.nll_sum);
    QCOMPARE(resumed->compressed.nll_sum, whole->compressed.nll_sum);
    QCOMPARE(resumed->divergence.mean_kl, whole->divergence.mean_kl);
    QCOMPARE(resumed->divergence.kl_99, whole->divergence.kl_99);
    QCOMPARE(resumed->divergence.same_top, whole->divergence.same_top);
    QCOMPARE(resumed->divergence.standard_error, whole->divergence.standard_error);
    QVERIFY(whole->divergence.mean_kl > 0.0);
}

void TestEvaluationResume::other_evaluations_are_refused_data()
{
    QTest::addColumn<QString>("what");
    for (const char* what : {"weights", "length", "stride", "tokens", "protocol", "comparison"})
        QTest::newRow(what) << what;
}

void TestEvaluationResume::other_evaluations_are_refused()
{
    QFETCH(QString, what);
    QVERIFY(write_text_file(place("other"), state_, true));
    PerplexityOptions how = options(place("other"));
    if (what == "weights")
        how.state_key = "another model";
    else if (what == "length")
        how.length = 96;
    else if (what == "stride")
        how.stride = 64;
    else if (what == "tokens")
        how.max_tokens = 30'000;
    else if (what == "protocol")
        how.protocol = PerplexityProtocol::Windows;
    const auto refused = what == "comparison" ? Status(compare(how) ? Status() : compare(how).error())
                                              : Status(measure(how) ? Status() : measure(how).error());
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);
    QVERIFY2(refused.error().sentence().find("other") != std::string::npos,
             refused.error().sentence().c_str());
    QVERIFY(*read_text_file(place("other")) == state_); // left for whom it belongs to
}

void TestEvaluationResume::damaged_states_are_refused_data()
{
    QTest::addColumn<QByteArray>("content");
    const QByteArray whole = QByteArray::fromStdString(state_);
    QTest::newRow("empty") << QByteArray();
    QTest::newRow("cut") << whole.left(whole.size() / 2);
    QTest::newRow("no object") << QByteArray("[1, 2]");
    QTest::newRow("no windows") << QByteArray("{\"format\": \"rankscope.evaluation-state\", \"version\": 1}");
    QTest::newRow("a loss that is text")
        << QByteArray(whole).replace("\"after\":", "\"after\":\"x\",\"was\":");
    QTest::newRow("no targets") << QByteArray(whole).replace("\"targets\":", "\"targets\":-1,\"was\":");
    QTest::newRow("divergences that a perplexity has not")
        << QByteArray(whole).replace("\"divergences\":[", "\"divergences\":[1e999");
}

void TestEvaluationResume::damaged_states_are_refused()
{
    QFETCH(QByteArray, content);
    QVERIFY(content.toStdString() != state_);
    QVERIFY(write_text_file(place("damaged"), content.toStdString(), true));
    const auto refused = measure(options(place("damaged")));
    QVERIFY(!refused);
    QCOMPARE(refused.error().kind, ErrorKind::BadInput);
    QVERIFY2(refused.error().sentence().find("damaged") != std::string::npos,
             refused.error().sentence().c_str());
}

QTEST_GUILESS_MAIN(TestEvaluationResume)
#include "test_evaluation_resume.moc"
