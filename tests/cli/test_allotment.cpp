// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/command.h"
#include "tests/support/test_paths.h"

#include <QJsonArray>
#include <QJsonObject>
#include <QTemporaryDir>
#include <QtTest>

using namespace rankscope::test;

/// Budgets by measured weights, predictions beside what runs measured, and runs side by side.
class TestAllotment : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void measured_weights();
    void predictions_beside_a_run();
    void differences_of_runs();
    void tables_for_papers();

private:
    QString place(const QString& name) const { return folder_.filePath(name); }
    QStringList planning() const
    {
        return {"plan",          sample_,
                "--calibration", place("cal"),
                "--method",      "qera_exact",
                "--bits",        "2",
                "--group",       "64",
                "--rank-step",   "8",
                "--curves",      place("curves.json"),
                "--budget",      "5.8bpw"};
    }

    QTemporaryDir folder_;
    QString sample_ = QString::fromStdString(sample_folder().string());
    QString text_ = QString::fromStdString((sample_folder() / "calibration.txt").string());
};

void TestAllotment::initTestCase()
{
    QCOMPARE(run_cli({"calibrate", sample_, "--text", text_, "--samples", "16", "--length", "64", "--out",
                      place("cal")})
                 .status,
             0);
    QCOMPARE(run_cli(planning() + QStringList{"--out", place("equal.json")}).status, 0);
    for (const char* name : {"first", "again"})
        QCOMPARE(run_cli({"compress", sample_, "--plan", place("equal.json"), "--calibration", place("cal"),
                          "--out", place(name)})
                     .status,
                 0);
}

void TestAllotment::measured_weights()
{
    const QStringList measured = planning() + QStringList{"--weights", "measured", "--text",   text_,
                                                          "--tokens",  "1024",     "--length", "64"};
    const QJsonObject first = document(measured)["budget"].toObject();
    const QJsonArray rows = first["rows"].toArray();
    QCOMPARE(rows.size(), 35);
    std::vector<double> weights;
    for (const QJsonValue& row : rows)
        weights.push_back(row.toObject()["weight"].toDouble());
    std::vector<double> sorted = weights;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[sorted.size() / 2];
    QVERIFY(median > 0.0);
    QVERIFY(sorted.front() >= 0.05 * median * (1.0 - 1e-9));
    QVERIFY2(sorted.back() > 2.0 * sorted.front(), "all layers count alike");
    QCOMPARE(first["proven"].toBool(), true);
    QVERIFY(first["used_bytes"].toInteger() <= first["bytes"].toInteger());
    // Both curves and losses are known now: the same once more, and nothing is measured.
    const QJsonObject again = document(measured)["budget"].toObject();
    QVERIFY(again["rows"] == first["rows"]);
    QCOMPARE(run_cli(planning() + QStringList{"--weights", "measured"}).status, 2); // no text
    QCOMPARE(run_cli(planning() + QStringList{"--text", text_}).status, 2);         // what for
}

void TestAllotment::predictions_beside_a_run()
{
    const QJsonArray rows = document(planning() + QStringList{"--against", place("first")})["budget"]
                                .toObject()["rows"]
                                .toArray();
    QCOMPARE(rows.size(), 35);
    for (const QJsonValue& value : rows) {
        const QJsonObject row = value.toObject();
        const double predicted = row["relative_activation_error"].toDouble();
        const double found = row["measured_activation_error"].toDouble(-1.0);
        QVERIFY2(std::abs(found - predicted) <= 1e-3 * predicted, qPrintable(row["layer"].toString()));
    }
    const CommandResult shown = run_cli(planning() + QStringList{"--against", place("first")});
    QVERIFY(shown.output.contains("measured error"));
    QCOMPARE(run_cli(planning() + QStringList{"--against", place("nowhere")}).status, 3);
}

void TestAllotment::differences_of_runs()
{
    QCOMPARE(run_cli({"plan", sample_, "--calibration", place("cal"), "--method", "qera_exact", "--bits", "2",
                      "--group", "64", "--rank", "8", "--set", "*.0.mlp.up_proj:rank=24", "--set",
                      "*.1.mlp.up_proj:method=rtn", "--out", place("other.json")})
                 .status,
             0);
    QCOMPARE(run_cli({"plan", sample_, "--calibration", place("cal"), "--method", "qera_exact", "--bits", "2",
                      "--group", "64", "--rank", "8", "--out", place("plain.json")})
                 .status,
             0);
    for (const char* name : {"other", "plain"})
        QCOMPARE(run_cli({"compress", sample_, "--plan", place(QString(name) + ".json"), "--calibration",
                          place("cal"), "--out", place(name)})
                     .status,
                 0);
    const QByteArray text =
        run_cli({"compare", place("plain"), place("other"), "--differences", "--format", "csv"}).output;
    const QList<QByteArray> lines = text.trimmed().split('\n');
    int rows = 0;
    for (const QByteArray& line : lines)
        rows += line.startsWith("model.layers.") ? 1 : 0;
    QCOMPARE(rows, 2);
    QVERIFY2(text.contains("rank=8,") && text.contains("rank=24,"), text.constData());
    QVERIFY2(text.contains("method=rtn"), text.constData());
    QVERIFY(!text.contains("group="));
    QVERIFY(run_cli({"compare", place("first"), place("again"), "--differences"})
                .output.contains("The runs do not differ in any layer."));
    QCOMPARE(run_cli({"compare", sample_, sample_, "--differences"}).status, 2);
}

void TestAllotment::tables_for_papers()
{
    const QByteArray markdown =
        run_cli({"compare", place("first"), place("again"), "--format", "markdown"}).output;
    QVERIFY(markdown.contains("| --- | "));
    QVERIFY(markdown.contains("| model.layers.0.mlp.up\\_proj | "));
    const QByteArray latex = run_cli({"compare", place("first"), place("again"), "--format", "latex"}).output;
    QCOMPARE(latex.count("\\begin{tabular}"), 2);
    QCOMPARE(latex.count("\\end{tabular}"), 2);
    QVERIFY(latex.contains("model.layers.0.mlp.up\\_proj & "));
    QVERIFY(!QString::fromUtf8(latex).contains(QChar(0x2013))); // what pdflatex has no letter for
    QCOMPARE(run_cli({"compare", place("first"), place("again"), "--format", "html"}).status, 2);
}

QTEST_GUILESS_MAIN(TestAllotment)
#include "test_allotment.moc"
