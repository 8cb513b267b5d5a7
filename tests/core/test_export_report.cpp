// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/atomic_file.h"
#include "core/evaluate/evaluation_record.h"
#include "core/export/detail/svg_chart.h"
#include "tests/support/export_support.h"
#include "tests/support/sample_model.h"

#include <QXmlStreamReader>
#include <QtTest>

using namespace rankscope;
using test::text_of;
namespace fs = std::filesystem;

namespace {

/// Every chart of a page, from tag to tag.
QStringList charts_of(const QString& page)
{
    QStringList charts;
    for (qsizetype begin = page.indexOf("<svg"); begin >= 0; begin = page.indexOf("<svg", begin + 1))
        charts.append(page.mid(begin, page.indexOf("</svg>", begin) + 6 - begin));
    return charts;
}

/// Empty, or why it is no XML.
QString xml_problem(const QString& text)
{
    QXmlStreamReader reader(text);
    while (!reader.atEnd())
        reader.readNext();
    return reader.hasError() ? reader.errorString() : QString();
}

} // namespace

class TestExportReport : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void page_and_table_say_what_the_run_holds();
    void iterations_are_drawn();
    void evaluations_are_kept_and_shown();
    void damaged_evaluations_are_named();
    void check_finds_a_changed_figure();
    void charts_are_xml_data();
    void charts_are_xml();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write_and_check(const Run& run) const
    {
        const Exporter& exporter = **require_exporter("report");
        if (auto written = exporter.write(run, *model_, file("out"), {}, silent_monitor()); !written)
            return written;
        return exporter.check(run, *model_, file("out"), silent_monitor());
    }
    QString page() const { return QString::fromStdString(*read_text_file(file("out") / "report.html")); }
    std::shared_ptr<const Run> small_run() const
    {
        return test::quick_run(
            model_, file("run"), "svd_residual",
            {{"bits", std::int64_t{4}}, {"group", std::int64_t{32}}, {"rank", std::int64_t{4}}},
            {"*.v_proj:bits=8,rank=0"});
    }

    std::shared_ptr<const Model> model_ = test::sample_model();
    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExportReport::page_and_table_say_what_the_run_holds()
{
    const auto run = small_run();
    const Status done = write_and_check(*run);
    QVERIFY2(done, qPrintable(text_of(done)));
    const QString html = page();
    QVERIFY(html.startsWith("<!doctype html>"));
    // Nothing is fetched from anywhere.
    for (const char* outside : {"http:", "https:", "<script", "src=", "@import", "url("})
        QVERIFY2(!html.contains(outside), outside);
    QVERIFY(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
    QVERIFY(html.contains("ZeroQuant-V2") && html.contains("rankscope-cli compress"));
    QVERIFY(html.contains("bits=8") && html.contains("Not measured yet"));
    const QStringList charts = charts_of(html);
    QCOMPARE(charts.size(), 3); // no iterations here
    for (const QString& chart : charts)
        QVERIFY2(xml_problem(chart).isEmpty(), qPrintable(xml_problem(chart)));
    const QStringList lines =
        QString::fromStdString(*read_text_file(file("out") / "report.csv")).split('\n', Qt::SkipEmptyParts);
    QCOMPARE(lines.size(), 36);
    const auto columns = lines[0].split(',');
    const auto results = run->results();
    for (int i = 1; i < lines.size(); ++i) {
        const LayerResult& result = results[static_cast<std::size_t>(i - 1)];
        QVERIFY(lines[i].startsWith('"' + QString::fromStdString(result.layer) + '"'));
        // Numbers read back as they are; the parameters hold commas between quotation marks.
        const QStringList end = lines[i].section("}\"", 1).split(',', Qt::SkipEmptyParts);
        QCOMPARE(end[2].toDouble(), result.bits_per_weight);
        QCOMPARE(end[7].toDouble(), result.quality.relative_activation_error);
        QVERIFY(html.contains(QString::fromStdString(result.layer)));
    }
    QCOMPARE(columns.size(), 18);
}

void TestExportReport::iterations_are_drawn()
{
    const auto run = test::make_sample_run(model_, file("work"), "odlri",
                                           {{"bits", std::int64_t{3}},
                                            {"group", std::int64_t{32}},
                                            {"rank", std::int64_t{4}},
                                            {"iterations", std::int64_t{2}}});
    QVERIFY(run);
    const Status done = write_and_check(**run);
    QVERIFY2(done, qPrintable(text_of(done)));
    QCOMPARE(charts_of(page()).size(), 4);
    QVERIFY(page().contains("--calibration CALIBRATION"));
}

void TestExportReport::evaluations_are_kept_and_shown()
{
    const auto run = small_run();
    Json document;
    document.set("protocol", "windows");
    document.set("length", 128);
    document.set("windows", 9);
    document.set("text_file", "a <b> & \"c\".txt");
    document.set("text_hash", std::string(64, 'a'));
    document.set("perplexity", 5.25);
    document.set("standard_error", 0.125);
    document.set("original", Json::Object{{"perplexity", Json(5.0)}});
    QVERIFY(record_evaluation(run->path(), document));
    document.set("perplexity", 5.5); // measured again
    QVERIFY(record_evaluation(run->path(), document));
    document.set("length", 64);
    QVERIFY(record_evaluation(run->path(), document));
    const auto kept = recorded_evaluations(run->path());
    QVERIFY(kept);
    QCOMPARE(kept->size(), std::size_t{2});
    const Status done = write_and_check(*run);
    QVERIFY2(done, qPrintable(text_of(done)));
    QVERIFY(page().contains("5.5000") && page().contains("+10.00 %") && page().contains("9 × 128"));
    QVERIFY(page().contains("a &lt;b&gt; &amp; &quot;c&quot;.txt") && !page().contains("a <b>"));
    Json bare;
    bare.set("protocol", "windows");
    QVERIFY(!record_evaluation(run->path(), bare));
    document.set("protocol", "../escape");
    QVERIFY(!record_evaluation(run->path(), document));
}

void TestExportReport::damaged_evaluations_are_named()
{
    const auto run = small_run();
    QVERIFY(recorded_evaluations(run->path())->empty());
    fs::create_directories(run->path() / "evaluations");
    for (const char* content : {"{", "{}", "{\"perplexity\": \"low\"}"}) {
        QVERIFY(write_text_file(run->path() / "evaluations" / "x.json", content, true));
        const Status written = write_and_check(*run);
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::BadInput);
        QVERIFY2(text_of(written).contains("x.json"), qPrintable(text_of(written)));
        QVERIFY(!fs::exists(file("out")));
    }
}

void TestExportReport::check_finds_a_changed_figure()
{
    const auto run = small_run();
    QVERIFY(write_and_check(*run));
    const fs::path table = file("out") / "report.csv";
    std::string text = *read_text_file(table);
    text[text.find("4.", text.find('\n'))] = '3';
    QVERIFY(write_text_file(table, text, true));
    const Status checked = (*require_exporter("report"))->check(*run, *model_, file("out"), silent_monitor());
    QVERIFY(!checked);
    QVERIFY2(text_of(checked).contains("report.csv") && text_of(checked).contains("line"),
             qPrintable(text_of(checked)));
}

void TestExportReport::charts_are_xml_data()
{
    QTest::addColumn<QVector<double>>("values");
    QTest::newRow("none") << QVector<double>{};
    QTest::newRow("one") << QVector<double>{0.5};
    QTest::newRow("equal") << QVector<double>{2.0, 2.0, 2.0};
    QTest::newRow("zeros") << QVector<double>{0.0, 0.0};
    QTest::newRow("decades") << QVector<double>{1e-6, 1.0, 1e4};
    QTest::newRow("negative") << QVector<double>{-3.0, 4.0};
    QTest::newRow("tiny") << QVector<double>{1e-300, 3e-300};
}

void TestExportReport::charts_are_xml()
{
    QFETCH(QVector<double>, values);
    ChartSeries series{"a & <b>", {}, {}, {}};
    for (int i = 0; i < values.size(); ++i) {
        series.x.push_back(i);
        series.y.push_back(values[i]);
    }
    const ChartText text{"title", "x", "y"};
    for (const std::string& chart :
         {line_chart(text, {series, series}), scatter_chart(text, {series}),
          bar_chart(text, {"part"}, {{"bar", {values.isEmpty() ? 0.0 : std::abs(values.back())}}})}) {
        const QString svg = QString::fromStdString(chart);
        QVERIFY2(xml_problem(svg).isEmpty(), qPrintable(xml_problem(svg)));
        QVERIFY2(!svg.contains("nan") && !svg.contains("inf"), qPrintable(svg));
    }
}

QTEST_GUILESS_MAIN(TestExportReport)
#include "test_export_report.moc"
