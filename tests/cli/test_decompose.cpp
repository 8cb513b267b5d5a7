// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/command.h"

#include <QJsonArray>
#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <filesystem>
#include <fstream>

using namespace rankscope;
using rankscope::test::CommandResult;
using rankscope::test::document;
using rankscope::test::run_cli;
namespace fs = std::filesystem;

namespace {

/// W (24 × 40) with X (40 × 96) or H: three input channels are much larger than the others.
void write_problem(const QString& path, bool with_tokens, bool with_hessian)
{
    const Index out = 24;
    const Index in = 40;
    const Index count = 96;
    Matrix w(out, in);
    Matrix x(in, count);
    for (Index i = 0; i < w.size(); ++i)
        w.data()[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i * i % 1013)));
    for (Index i = 0; i < x.size(); ++i)
        x.data()[i] = static_cast<float>(std::cos(1.3 * static_cast<double>(i * i % 2003)))
                      * (i / count % 13 == 5 ? 12.0F : 1.0F);
    std::vector<TensorSource> tensors;
    tensors.push_back(tensor_source("W", w));
    if (with_tokens)
        tensors.push_back(tensor_source("X", x));
    if (with_hessian)
        tensors.push_back(tensor_source(
            "H", MatrixD(x.cast<double>() * x.cast<double>().transpose() / static_cast<double>(count))));
    QVERIFY(write_safetensors(path.toStdString(), std::move(tensors), {}, true));
}

} // namespace

/// `rankscope-cli decompose`: one matrix from a file, everything it made into another.
class TestDecompose : public QObject {
    Q_OBJECT

private slots:
    void one_matrix_data();
    void one_matrix();
    void with_tokens_and_trace();
    void case_file();
    void same_bytes_for_any_threads();

private:
    QString place(const QString& name) const { return folder_.filePath(name); }

    QTemporaryDir folder_;
};

void TestDecompose::one_matrix_data()
{
    QTest::addColumn<QStringList>("options");
    QTest::addColumn<int>("rank");
    QTest::newRow("rtn") << QStringList{"--method", "rtn", "--bits", "3", "--group", "16"} << 0;
    QTest::newRow("gptq") << QStringList{"--method", "gptq", "--bits", "3", "--set", "act_order=false"} << 0;
    QTest::newRow("caldera") << QStringList{"--method", "caldera", "--bits", "2",
                                            "--group",  "16",      "--rank", "4"}
                             << 4;
    QTest::newRow("odlri") << QStringList{"--method", "odlri",  "--bits", "2",     "--group",
                                          "0",        "--rank", "4",      "--set", "k=2"}
                           << 4;
}

void TestDecompose::one_matrix()
{
    QFETCH(QStringList, options);
    QFETCH(int, rank);
    write_problem(place("problem.safetensors"), false, true);
    const QString out = place(QString(QTest::currentDataTag()) + ".safetensors");
    const QString report_path = place(QString(QTest::currentDataTag()) + ".json");
    const QJsonObject report = document(QStringList{"decompose", "--input", place("problem.safetensors"),
                                                    "--out", out, "--report", report_path}
                                        + options);
    for (const char* key : {"method", "parameters", "seconds", "bits_per_weight", "relative_error",
                            "relative_activation_error", "quantization_scale", "rank", "iterations"})
        QVERIFY2(report.contains(key), key);
    QCOMPARE(report["rank"].toInt(), rank);
    QVERIFY(report["relative_activation_error"].toDouble() < 0.6);
    QFile stored(report_path);
    QVERIFY(stored.open(QIODevice::ReadOnly));
    QCOMPARE(QJsonDocument::fromJson(stored.readAll()).object(), report);
    const auto reader = CheckpointReader::open(out.toStdString());
    QVERIFY(reader);
    const auto whole = (*reader)->read("W_hat");
    const auto q = (*reader)->read("Q");
    QVERIFY(whole && q);
    Matrix sum = *q;
    if (rank > 0)
        sum += *(*reader)->read("L") * *(*reader)->read("R");
    QVERIFY((sum - *whole).norm() <= 1e-5F * whole->norm());
    QVERIFY((*reader)->find("codes") && (*reader)->find("scales") && (*reader)->find("zeros"));
    // The figure is that of the files: recomputed from W, W_hat and H.
    const auto problem = CheckpointReader::open(place("problem.safetensors").toStdString());
    const MatrixD w = (*problem)->read("W")->cast<double>();
    const MatrixD h = (*problem)->read("H")->cast<double>();
    const MatrixD e = w - whole->cast<double>();
    const double expected = std::sqrt((e * h).cwiseProduct(e).sum() / (w * h).cwiseProduct(w).sum());
    QVERIFY(std::abs(report["relative_activation_error"].toDouble() / expected - 1.0) < 1e-4);
}

void TestDecompose::with_tokens_and_trace()
{
    write_problem(place("tokens.safetensors"), true, false);
    const QStringList command = {"decompose", "--input",      place("tokens.safetensors"),
                                 "--method",  "caldera",      "--bits",
                                 "2",         "--rank",       "4",
                                 "--set",     "iterations=2", "--out"};
    const QJsonObject report = document(command + QStringList{place("traced.safetensors"), "--trace"});
    const int steps = static_cast<int>(report["iterations"].toArray().size());
    QVERIFY(steps >= 2);
    const auto reader = CheckpointReader::open(place("traced.safetensors").toStdString());
    QVERIFY(reader);
    int matrices = 0;
    for (const TensorInfo& tensor : (*reader)->tensors())
        matrices += tensor.name.starts_with("trace.") && tensor.name.ends_with(".Q") ? 1 : 0;
    QVERIFY2(matrices >= 2, qPrintable(QString::number(matrices)));
    QCOMPARE(run_cli(command + QStringList{place("traced.safetensors")}).status, 3); // exists
    write_problem(place("alone.safetensors"), false, false);
    const CommandResult lacking = run_cli(
        {"decompose", "--input", place("alone.safetensors"), "--method", "caldera", "--out", place("never")});
    QCOMPARE(lacking.status, 3);
    QVERIFY2(lacking.errors.contains("alone.safetensors") && lacking.errors.contains("H"), lacking.errors);
    QVERIFY(!fs::exists(place("never").toStdString()));
}

void TestDecompose::case_file()
{
    write_problem(place("problem.safetensors"), false, true);
    const auto write_case = [&](const char* text) {
        std::ofstream(place("case.json").toStdString()) << text;
    };
    const QStringList command = {"decompose",        "--input", place("problem.safetensors"), "--case",
                                 place("case.json"), "--out",   place("case.safetensors"),    "--force"};
    write_case(
        R"({"method":"caldera","parameters":{"rank":4,"bits":2,"codebook":"uniform","rht":false,"iterations":2,)"
        R"("order":["Q","LR"],"group":16,"damp":0.01}})");
    const QJsonObject report = document(command);
    QCOMPARE(report["method"].toString(), "caldera");
    QCOMPARE(report["parameters"].toObject()["rank"].toInt(), 4);
    QCOMPARE(report["parameters"].toObject()["clip_search"].toString(), "none");
    write_case(R"({"method":"caldera","parameters":{"rank":4,"bits":2,"static_groups":false}})");
    const CommandResult refused = run_cli(command);
    QCOMPARE(refused.status, 2);
    QVERIFY2(refused.errors.contains("static_groups") && refused.errors.contains("case.json"),
             refused.errors);
    write_case("{\"method\":\"caldera\"");
    QCOMPARE(run_cli(command).status, 3);
}

void TestDecompose::same_bytes_for_any_threads()
{
    write_problem(place("problem.safetensors"), false, true);
    QByteArray first;
    for (const char* threads : {"1", "2", "3"}) {
        const QString out = place(QString("threads%1.safetensors").arg(threads));
        const CommandResult result =
            run_cli({"decompose", "--input", place("problem.safetensors"), "--method", "odlri", "--rank", "8",
                     "--threads", threads, "--out", out});
        QVERIFY2(result.status == 0, result.errors);
        QFile file(out);
        QVERIFY(file.open(QIODevice::ReadOnly));
        const QByteArray bytes = file.readAll();
        QVERIFY(first.isEmpty() || first == bytes);
        first = bytes;
    }
}

QTEST_GUILESS_MAIN(TestDecompose)
#include "test_decompose.moc"
