// SPDX-License-Identifier: GPL-3.0-or-later
//
// What other people's programs make of our files. Needs a Python with torch, transformers and safetensors,
// named by RANKSCOPE_CLIENT_PYTHON.
#include "core/base/json.h"
#include "core/calibration/calibration_store.h"
#include "core/evaluate/perplexity.h"
#include "core/export/exporter.h"
#include "tests/support/client.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include <cmath>

using namespace rankscope;
namespace fs = std::filesystem;

class TestTransformers : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void dense_export_has_our_perplexity();
    void packed_export_has_our_perplexity_data();
    void packed_export_has_our_perplexity();
    void packed_export_is_no_plain_checkpoint();
    void calibration_opens_in_python();

private:
    static constexpr int k_length = 256;

    fs::path file(const char* name) const { return fs::path(folder_.path().toStdString()) / name; }
    void export_as(const char* format, const fs::path& out) const
    {
        const Exporter& exporter = **require_exporter(format);
        const Status written = exporter.write(*run_, *model_, out, {}, silent_monitor());
        QVERIFY2(written,
                 qPrintable(written ? QString() : QString::fromStdString(written.error().sentence())));
        QVERIFY(exporter.check(*run_, *model_, out, silent_monitor()));
    }
    /// The JSON that a script prints; fails the test with its standard error otherwise.
    Json answer_of(const QStringList& arguments, int* status = nullptr) const
    {
        QProcess process;
        process.start(python_, arguments);
        if (!process.waitForFinished(500000) || (!status && process.exitCode() != 0)) {
            QTest::qFail(process.readAllStandardError().constData(), __FILE__, __LINE__);
            return {};
        }
        if (status)
            *status = process.exitCode();
        const auto json = Json::parse(process.readAllStandardOutput().toStdString());
        return json ? *json : Json();
    }

    QString python_;
    std::shared_ptr<const Model> model_ = test::sample_model();
    std::shared_ptr<const Run> run_;
    PerplexityResult ours_;
    fs::path text_ = test::sample_folder() / "evaluation.txt";
    QTemporaryDir folder_;
};

void TestTransformers::initTestCase()
{
    python_ = test::client_python();
    if (python_.isEmpty())
        QSKIP(test::k_no_client);
    const auto run = test::make_sample_run(
        model_, folder_.path().toStdString(), "odlri",
        {{"bits", std::int64_t{3}}, {"group", std::int64_t{64}}, {"rank", std::int64_t{8}}});
    QVERIFY2(run, qPrintable(run ? QString() : QString::fromStdString(run.error().sentence())));
    run_ = *run;
    PerplexityOptions options;
    options.protocol = PerplexityProtocol::Windows;
    options.length = k_length;
    const auto backend = make_cpu_backend();
    const auto weights = run_weights(model_, run_);
    const auto result = perplexity(model_, *weights, text_, options, *backend, silent_monitor());
    QVERIFY(result);
    ours_ = *result;
}

void TestTransformers::dense_export_has_our_perplexity()
{
    const auto shared = test::shared_folder();
    if (!shared)
        QSKIP(test::k_no_shared);
    export_as("hf", file("hf"));
    const QString script = QString::fromStdString((*shared / "tools" / "check_hf.py").string());
    const Json answer = answer_of({script, QString::fromStdString(file("hf").string()), "--text",
                                   QString::fromStdString(text_.string()), "--window",
                                   QString::number(k_length), "--windows", "1000"});
    QVERIFY2(answer["loads"].boolean(), answer["error"].string().c_str());
    QCOMPARE(static_cast<std::uint64_t>(answer["targets"].integer()), ours_.targets);
    const double theirs = answer["perplexity"].number();
    qInfo("perplexity of the run: %.6f here, %.6f in transformers (dense)", ours_.perplexity, theirs);
    QVERIFY(std::abs(theirs / ours_.perplexity - 1.0) < 5e-5);
}

void TestTransformers::packed_export_has_our_perplexity_data()
{
    QTest::addColumn<QStringList>("options");
    QTest::addColumn<int>("packed_layers");
    QTest::newRow("kept packed") << QStringList{} << 35;
    QTest::newRow("made dense") << QStringList{"--dense"} << 0;
}

void TestTransformers::packed_export_has_our_perplexity()
{
    QFETCH(QStringList, options);
    QFETCH(int, packed_layers);
    const fs::path out = file(options.isEmpty() ? "qlr" : "qlr-dense");
    export_as("hf-qlr", out);
    const Json answer =
        answer_of(QStringList{RANKSCOPE_SOURCE_DIR "/tests/clients/qlr_perplexity.py",
                              QString::fromStdString(out.string()), QString::fromStdString(text_.string()),
                              QString::number(k_length)}
                  + options);
    QCOMPARE(answer["packed_layers"].integer(-1), std::int64_t{packed_layers});
    QCOMPARE(static_cast<std::uint64_t>(answer["targets"].integer()), ours_.targets);
    const double theirs = answer["perplexity"].number();
    qInfo("perplexity of the run: %.6f here, %.6f in transformers (Q, L, R)", ours_.perplexity, theirs);
    QVERIFY(std::abs(theirs / ours_.perplexity - 1.0) < 5e-3); // scales and factors are F16 there
}

void TestTransformers::packed_export_is_no_plain_checkpoint()
{
    export_as("hf-qlr", file("not-plain"));
    int status = 0;
    answer_of({"-c",
               "import sys\nfrom transformers import AutoModelForCausalLM\n"
               "AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True)",
               QString::fromStdString(file("not-plain").string())},
              &status);
    QVERIFY(status != 0); // better than random weights
}

void TestTransformers::calibration_opens_in_python()
{
    const char* script =
        "import json, sys\n"
        "from safetensors import safe_open\n"
        "f = safe_open(sys.argv[1] + '/block-0001.safetensors', framework='np')\n"
        "g = 'model.layers.1.mlp.down_proj.'\n"
        "h = f.get_tensor(g + 'hessian')\n"
        "print(json.dumps({'trace': float(h.trace()), 'symmetric': bool((h == h.T).all()), 'n': h.shape[0],\n"
        "  'tokens': int(f.get_tensor(g + 'counts')[0]), 'bins': f.get_tensor(g + 'histogram').shape[0],\n"
        "  'mean': float(f.get_tensor(g + 'statistics')[0].sum()), 'max': float(f.get_tensor(g + "
        "'max_abs').max()),\n"
        "  'first': int(f.get_tensor(g + 'first.counts')[0]), 'later': int(f.get_tensor(g + 'later.counts')[0]),\n"
        "  'sample': list(f.get_tensor(g + 'sample').shape), 'kind': str(f.get_tensor(g + 'sample').dtype),\n"
        "  'strongest': list(f.get_tensor('output.strongest').shape)}))\n";
    const fs::path folder = file("calibration");
    const Json answer = answer_of({"-c", script, QString::fromStdString(folder.string())});
    const auto store = CalibrationStore::open(folder);
    QVERIFY(store);
    const auto moments = (*store)->moments("model.layers.1.mlp.down_proj");
    const auto statistics = (*store)->statistics("model.layers.1.mlp.down_proj");
    QVERIFY(moments && statistics);
    QCOMPARE(answer["n"].integer(), std::int64_t{172});
    QCOMPARE(answer["bins"].integer(), std::int64_t{ActivationStatistics::k_histogram_bins});
    QVERIFY(answer["symmetric"].boolean());
    QCOMPARE(static_cast<std::uint64_t>(answer["tokens"].integer()), moments->tokens);
    QVERIFY(std::abs(answer["trace"].number() / moments->hessian.trace() - 1.0) < 1e-12);
    QVERIFY(std::abs(answer["mean"].number() - statistics->mean().sum()) < 1e-9);
    QCOMPARE(answer["max"].number(), moments->max_abs.maxCoeff());
    QCOMPARE(answer["first"].integer() + answer["later"].integer(), answer["tokens"].integer());
    QCOMPARE(answer["kind"].string(), std::string("float16"));
    QCOMPARE(static_cast<std::size_t>(answer["sample"].array_if()->front().integer()),
             (*store)->sample("model.layers.1.mlp.down_proj")->tokens.size());
    QCOMPARE(answer["strongest"].array_if()->front().integer(), 32);
}

QTEST_GUILESS_MAIN(TestTransformers)
#include "test_transformers.moc"
