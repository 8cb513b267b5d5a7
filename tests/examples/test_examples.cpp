// SPDX-License-Identifier: GPL-3.0-or-later
// The worked examples of the documentation do what their pages say; that the pages quote them word for word
// is test_docs' business.
#include "core/compute/backend.h"
#include "tests/examples/mean_split.h"
#include "tests/examples/npy_exporter.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_layer.h"
#include "tests/support/verify.h"

#include <QFile>
#include <QTemporaryDir>
#include <QTest>

#include <cstring>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

const test::Given k_symmetric = {{"bits", std::int64_t{4}}, {"group", std::int64_t{16}}, {"symmetric", true}};

/// A layer whose rows do not lie around zero.
Matrix shifted_rows(Index out, Index in)
{
    Matrix weight = test::sample_layer({out, in, 50, 2}, 7).weight;
    for (Index row = 0; row < out; ++row)
        weight.row(row).array() += 0.3F * static_cast<float>(row % 5);
    return weight;
}

Decomposition decomposed(const Method& method, const Matrix& weight)
{
    const auto backend = make_cpu_backend();
    LayerProblem problem;
    problem.weight = backend->upload(weight);
    problem.name = "layer";
    const auto parameters = Parameters::make(method.info(), k_symmetric);
    auto result = method.decompose(problem, *parameters, *backend, silent_monitor());
    if (!result)
        qFatal("%s", result.error().sentence().c_str());
    return std::move(*result);
}

} // namespace

class TestExamples : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void means_are_the_low_rank_part_data();
    void means_are_the_low_rank_part();
    void splitting_off_means_rounds_better();
    void method_refuses_what_is_not_finite();
    void arrays_hold_the_run();
    void changed_array_is_found();
};

void TestExamples::means_are_the_low_rank_part_data()
{
    QTest::addColumn<int>("out");
    QTest::addColumn<int>("in");
    QTest::newRow("1 x 1") << 1 << 1;
    QTest::newRow("13 x 37") << 13 << 37;
    QTest::newRow("64 x 172") << 64 << 172;
}

void TestExamples::means_are_the_low_rank_part()
{
    QFETCH(const int, out);
    QFETCH(const int, in);
    const Matrix weight = shifted_rows(out, in);
    const Decomposition result = decomposed(examples::mean_split_method(), weight);
    QCOMPARE(result.low_rank.rank(), Index{1});
    const Matrix means = weight.rowwise().mean();
    QVERIFY((result.low_rank.left - means).norm() <= 1e-5F * (1.0F + means.norm()));
    QVERIFY((result.low_rank.right.array() == 1.0F).all());
}

void TestExamples::splitting_off_means_rounds_better()
{
    const Matrix weight = shifted_rows(40, 64);
    const double alone = measure(weight, decomposed(**require_method("rtn"), weight), nullptr).relative_error;
    const double split =
        measure(weight, decomposed(examples::mean_split_method(), weight), nullptr).relative_error;
    QVERIFY2(split < 0.8 * alone, qPrintable(QString("%1 against %2").arg(split).arg(alone)));
}

void TestExamples::method_refuses_what_is_not_finite()
{
    const auto backend = make_cpu_backend();
    Matrix weight = shifted_rows(4, 8);
    weight(1, 2) = std::numeric_limits<float>::quiet_NaN();
    LayerProblem problem;
    problem.weight = backend->upload(weight);
    problem.name = "layer";
    const Method& method = examples::mean_split_method();
    const auto result =
        method.decompose(problem, *Parameters::make(method.info(), {}), *backend, silent_monitor());
    QVERIFY(!result);
    QCOMPARE(result.error().kind, ErrorKind::BadInput);
}

void TestExamples::arrays_hold_the_run()
{
    test::SampleRuns runs;
    const auto run = runs.ragged();
    const QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "arrays";
    VERIFY_OK(test::write_and_check(examples::npy_exporter(), *run, *runs.model(), out));
    const std::string layer = run->results().front().layer;
    QFile file(QString::fromStdString((out / (layer + ".npy")).string()));
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QByteArray bytes = file.readAll();
    const Matrix expected = run->decomposition(layer)->reconstruct();
    QCOMPARE(bytes.first(6), QByteArray("\x93NUMPY"));
    QVERIFY(bytes.first(128).contains(QByteArray::fromStdString("(" + std::to_string(expected.rows()) + ", "
                                                                + std::to_string(expected.cols()) + ")")));
    QCOMPARE(bytes.size(), 128 + static_cast<qsizetype>(expected.size() * 4));
    QVERIFY(std::memcmp(bytes.data() + 128, expected.data(), static_cast<std::size_t>(expected.size()) * 4)
            == 0);
    // A second one does not replace it unasked.
    const Status again =
        examples::npy_exporter().write(*run, *runs.model(), out, ExportOptions{}, silent_monitor());
    QVERIFY(!again);
}

void TestExamples::changed_array_is_found()
{
    test::SampleRuns runs;
    const auto run = runs.ragged();
    const QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "arrays";
    VERIFY_OK(test::write_and_check(examples::npy_exporter(), *run, *runs.model(), out));
    const std::string layer = run->results().back().layer;
    QFile file(QString::fromStdString((out / (layer + ".npy")).string()));
    QVERIFY(file.open(QIODevice::ReadWrite) && file.seek(file.size() - 1) && file.write("\x55") == 1);
    file.close();
    const Status checked = examples::npy_exporter().check(*run, *runs.model(), out, silent_monitor());
    QVERIFY(!checked);
    QVERIFY(test::text_of(checked).contains(QString::fromStdString(layer)));
}

QTEST_GUILESS_MAIN(TestExamples)
#include "test_examples.moc"
