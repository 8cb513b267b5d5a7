// SPDX-License-Identifier: GPL-3.0-or-later
// rankscope-golden as a program: a right answer passes, a wrong one, an unknown method and a broken case
// fail.
#include "core/base/json.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "tests/support/test_paths.h"

#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope;

namespace {

struct Answer {
    int status = -1;
    QString output;
    QString errors;
};

/// Weights whose 2-bit grid is plain to see: one row from −1 to 2 in steps of 1.
Matrix simple_weight()
{
    Matrix w(1, 4);
    w << -1.0F, 0.0F, 1.2F, 2.0F;
    return w;
}

} // namespace

class TestGolden : public QObject {
    Q_OBJECT

    QTemporaryDir folder_;

    std::filesystem::path path(const std::string& name) const
    {
        return folder_.filePath(QString::fromStdString(name)).toStdString();
    }

    void write_text(const std::string& name, const std::string& text)
    {
        QFile file(folder_.filePath(QString::fromStdString(name)));
        QVERIFY(file.open(QIODevice::WriteOnly));
        file.write(text.data(), static_cast<qint64>(text.size()));
    }

    void write_case(const std::string& name, const std::string& method, const Matrix& expected,
                    const std::string& extra = "")
    {
        write_text(
            name + ".json",
            R"({"method": ")" + method
                + R"(", "parameters": {"bits": 2, "group": 0, "symmetric": false}, "scalars": {}, )"
                  R"("scalar_rtol": {"f32": 0.001}, "tolerance": {"Q": {"f32": 1e-4}, "codes": {"codes": 0.0}, )"
                  R"("scales": {"f32": 1e-4}, "zeros": {"f32": 1e-4})"
                + extra + "}}");
        Matrix scale = Matrix::Ones(1, 1);
        QVERIFY(
            write_safetensors(path(name + ".safetensors"),
                              {tensor_source("W", simple_weight()), tensor_source("expect.Q", expected),
                               tensor_source("expect.codes", expected.cast<double>()),
                               tensor_source("expect.scales", scale), tensor_source("expect.zeros", scale)},
                              {}, true)
                .has_value());
    }

    Answer run(const QStringList& arguments)
    {
        QProcess process;
        process.start(QString::fromStdString((test::program_folder() / "rankscope-golden").string()),
                      arguments);
        if (!process.waitForFinished(60000))
            return {};
        return {process.exitCode(), QString::fromUtf8(process.readAllStandardOutput()),
                QString::fromUtf8(process.readAllStandardError())};
    }

    Answer run_filter(const QString& filter)
    {
        return run({folder_.path(), "--backend", "cpu", "--filter", filter});
    }

private slots:
    void initTestCase()
    {
        Matrix right(1, 4);
        right << -1.0F, 0.0F, 1.0F, 2.0F;
        Matrix wrong = right;
        wrong(0, 1) = 1.0F;
        write_case("right", "rtn", right);
        write_case("wrong", "rtn", wrong);
        write_case("unknown", "telepathy", right);
        write_case("left_out", "rtn", right, R"(, "moonlight": {"f32": 1.0})");
        write_text("no_json.json", "{");
        write_text("no_tensors.json", R"({"method": "rtn", "parameters": {}})");
        write_case("cut", "rtn", right);
        std::filesystem::resize_file(path("cut.safetensors"), 100);
        write_text("strange.json", R"({"method": "rtn", "parameters": {"bits": 3, "flavor": "mint"}})");
        std::filesystem::copy_file(path("right.safetensors"), path("strange.safetensors"));
        write_text("bits.json", R"({"method": "rtn", "parameters": {"bits": 40}})");
        std::filesystem::copy_file(path("right.safetensors"), path("bits.safetensors"));
    }

    void a_right_answer_passes()
    {
        const Answer answer = run_filter("right");
        QCOMPARE(answer.status, 0);
        QVERIFY(answer.output.startsWith("passed right"));
        QVERIFY(answer.output.endsWith("1 passed, 0 failed\n"));
    }

    void everything_else_fails_data()
    {
        QTest::addColumn<QString>("name");
        QTest::addColumn<QString>("words");
        QTest::newRow("wrong") << "wrong"
                               << "× tolerance";
        QTest::newRow("unknown method") << "unknown"
                                        << "telepathy";
        QTest::newRow("expected but not compared") << "left_out"
                                                   << "moonlight";
        QTest::newRow("no JSON") << "no_json"
                                 << "no_json.json";
        QTest::newRow("no tensors") << "no_tensors"
                                    << "tensor W";
        QTest::newRow("truncated") << "cut"
                                   << "cut.safetensors";
        QTest::newRow("unknown parameter") << "strange"
                                           << "flavor";
        QTest::newRow("bits out of range") << "bits"
                                           << "bits";
    }

    void everything_else_fails()
    {
        QFETCH(QString, name);
        QFETCH(QString, words);
        const Answer answer = run_filter(name);
        QCOMPARE(answer.status, 1);
        QVERIFY2(answer.output.contains("FAILED " + name) && answer.output.contains(words),
                 qPrintable(answer.output));
        QVERIFY(answer.output.endsWith("0 passed, 1 failed\n"));
    }

    void filters_are_comma_separated()
    {
        QVERIFY(run_filter("rig*,wro??").output.endsWith("1 passed, 1 failed\n"));
    }

    void json_is_one_document()
    {
        const Answer answer = run({folder_.path(), "--json", "--backend", "cpu"});
        QCOMPARE(answer.status, 1);
        const auto json = Json::parse(answer.output.toStdString());
        QVERIFY(json.has_value());
        QCOMPARE((*json)["passed"].integer(), std::int64_t{1});
        QCOMPARE((*json)["failed"].integer(), std::int64_t{8});
        QCOMPARE((*json)["backend"].string(), std::string("cpu"));
        QCOMPARE((*json)["cases"].array_if()->size(), std::size_t{9});
    }

    void bad_requests_have_their_status()
    {
        QCOMPARE(run({}).status, 2);
        QCOMPARE(run({folder_.path(), "--backend", "abacus"}).status, 2);
        QCOMPARE(run({folder_.filePath("nowhere")}).status, 3);
        QCOMPARE(run_filter("nothing-of-that-name").status, 3);
    }
};

QTEST_GUILESS_MAIN(TestGolden)
#include "test_golden.moc"
