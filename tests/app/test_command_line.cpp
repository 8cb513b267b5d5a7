// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/command_line.h"
#include "app/workbench/text.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"

#include <QFile>
#include <QImage>
#include <QProcess>

using namespace rankscope;
using namespace rankscope::test;

namespace {

QStringList words(const QString& line)
{
    return QStringList{QStringLiteral("rankscope")} + line.split(QLatin1Char(' '), Qt::SkipEmptyParts);
}

} // namespace

class TestCommandLine : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void takes_what_the_help_lists();
    void refuses_with_a_sentence_data();
    void refuses_with_a_sentence();
    void renders_views_into_files_data();
    void renders_views_into_files();
    void a_planned_rank_is_drawn();
    void render_explains_what_is_wrong();
    void program_needs_no_display_to_say_so();

private:
    PrivateSettings settings_;
};

void TestCommandLine::initTestCase() { Theme::instance().apply(*qApp, Theme::Choice::Light); }

void TestCommandLine::takes_what_the_help_lists()
{
    const auto options = parseCommandLine(words(QStringLiteral(
        "model --theme dark --workdir /tmp/w --backend vulkan:1 --view spectrum --layer a.b --run")));
    QVERIFY(options.has_value());
    QCOMPARE(options->path, QStringLiteral("model"));
    QVERIFY(options->theme == Theme::Choice::Dark);
    QCOMPARE(options->window.work_root, QStringLiteral("/tmp/w"));
    QCOMPARE(options->window.backend, QStringLiteral("vulkan:1"));
    QCOMPARE(options->view, QStringLiteral("spectrum"));
    QVERIFY(options->run && !options->sample);
    const auto none = parseCommandLine(words({}));
    QVERIFY(none.has_value());
    QCOMPARE(none->window.backend, QStringLiteral("auto"));
    QVERIFY(!none->theme);
    for (const char* option : {"--sample", "--theme", "--workdir", "--backend", "--screenshot", "--render"})
        QVERIFY2(helpText().contains(QLatin1String(option)), option);
}

void TestCommandLine::refuses_with_a_sentence_data()
{
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("word");
    QTest::newRow("unknown") << "--bogus"
                             << "bogus";
    QTest::newRow("two paths") << "a b"
                               << "'b'";
    QTest::newRow("theme") << "--theme pink"
                           << "pink";
    QTest::newRow("view") << "--view sideways"
                          << "sideways";
    QTest::newRow("sample and path") << "--sample a"
                                     << "--sample";
    QTest::newRow("render what") << "--render pie a -o f.png"
                                 << "pie";
    QTest::newRow("option") << "--render histogram a -o f.png --option row"
                            << "KEY=VALUE";
    QTest::newRow("render where") << "--render channels a"
                                  << "-o";
    QTest::newRow("render of what") << "--render channels -o f.png"
                                    << "checkpoint";
}

void TestCommandLine::refuses_with_a_sentence()
{
    QFETCH(QString, line);
    QFETCH(QString, word);
    const auto options = parseCommandLine(words(line));
    QVERIFY(!options);
    QVERIFY(options.error().kind == ErrorKind::Usage);
    QVERIFY2(toQString(options.error().sentence()).contains(word), options.error().sentence().c_str());
}

void TestCommandLine::renders_views_into_files_data()
{
    QTest::addColumn<QString>("view");
    QTest::addColumn<QString>("suffix");
    QTest::newRow("channels png") << "channels"
                                  << "png";
    QTest::newRow("spectrum png") << "spectrum"
                                  << "png";
    QTest::newRow("spectrum pdf") << "spectrum"
                                  << "pdf";
    QTest::newRow("channels csv") << "channels"
                                  << "csv";
    for (const QString& view :
         {QStringLiteral("histogram"), QStringLiteral("matrices"), QStringLiteral("activations")})
        for (const char* suffix : {"png", "pdf", "svg", "csv"})
            QTest::newRow(qPrintable(view + QLatin1Char(' ') + QLatin1String(suffix))) << view << suffix;
}

void TestCommandLine::renders_views_into_files()
{
    QFETCH(QString, view);
    QFETCH(QString, suffix);
    LaunchOptions options;
    options.path = QString::fromStdString(sample_folder().string());
    options.render = view;
    options.layer = QStringLiteral("model.layers.2.mlp.down_proj");
    options.output = settings_.path(QStringLiteral("%1.%2").arg(view, suffix));
    const Status status = renderView(options);
    QVERIFY2(status.has_value(), status ? "" : status.error().sentence().c_str());
    QVERIFY(QFile(options.output).size() > 500);
    if (suffix == QLatin1String("png")) {
        const QImage picture(options.output);
        QVERIFY(picture.width() >= 900 && picture.height() >= 400);
    }
}

/// The rank of --set is where the Spectrum view's cursor stands.
void TestCommandLine::a_planned_rank_is_drawn()
{
    LaunchOptions options;
    options.path = QString::fromStdString(sample_folder().string());
    options.render = QStringLiteral("spectrum");
    options.layer = QStringLiteral("model.layers.2.mlp.down_proj");
    QByteArray pictures[2];
    for (const int i : {0, 1}) {
        options.setting =
            i == 0 ? QStringLiteral("*:method=odlri,rank=0") : QStringLiteral("*:method=odlri,rank=24");
        options.output = settings_.path(QStringLiteral("rank%1.svg").arg(i));
        const Status status = renderView(options);
        QVERIFY2(status.has_value(), status ? "" : status.error().sentence().c_str());
        QFile file(options.output);
        QVERIFY(file.open(QIODevice::ReadOnly));
        pictures[i] = file.readAll();
    }
    QVERIFY2(!pictures[0].contains("Rank 24") && pictures[1].contains("Rank 24"), pictures[1].left(2000));
}

void TestCommandLine::render_explains_what_is_wrong()
{
    LaunchOptions options;
    options.render = QStringLiteral("channels");
    options.output = settings_.path(QStringLiteral("never.png"));
    options.path = settings_.path(QStringLiteral("not there"));
    Status status = renderView(options);
    QVERIFY(!status);
    QVERIFY(status.error().sentence().find("not there") != std::string::npos);
    options.path = QString::fromStdString(sample_folder().string());
    options.layer = QStringLiteral("no.such.layer");
    status = renderView(options);
    QVERIFY(!status);
    QVERIFY(status.error().sentence().find("no.such.layer") != std::string::npos);
    options.layer.clear();
    options.render = QStringLiteral("overview"); // there is no calibration to draw
    status = renderView(options);
    QVERIFY(!status);
    QVERIFY2(status.error().sentence().find("--calibration") != std::string::npos,
             status.error().sentence().c_str());
    options.render = QStringLiteral("histogram");
    options.compare = settings_.path(QStringLiteral("nothing"));
    QVERIFY(!renderView(options));
    options.compare = options.path; // with itself: every layer has a partner
    QVERIFY(renderView(options));
    QVERIFY(QFile::remove(options.output));
    for (const char* view : {"matrices", "activations"}) {
        options.render = QString::fromLatin1(view);
        QVERIFY(renderView(options));
        QVERIFY(QFile::remove(options.output));
    }
    options.compare.clear();
    options.render = QStringLiteral("histogram");
    options.setting = QStringLiteral("*:bits=77");
    QVERIFY(!renderView(options));
    options.setting.clear();
    options.with_run = settings_.path(QStringLiteral("no run"));
    QVERIFY(!renderView(options));
    options.with_run.clear();
    options.calibration = settings_.path(QStringLiteral("no calibration"));
    QVERIFY(!renderView(options));
    options.calibration.clear();
    QFile file(settings_.path(QStringLiteral("file"))); // no folder can be made below a file
    QVERIFY(file.open(QIODevice::WriteOnly));
    options.output = settings_.path(QStringLiteral("file/x.png"));
    QVERIFY(!renderView(options));
    QVERIFY(!QFile::exists(settings_.path(QStringLiteral("never.png"))));
}

void TestCommandLine::program_needs_no_display_to_say_so()
{
    const QString program = QString::fromStdString((program_folder() / "rankscope").string());
    if (!QFile::exists(program))
        QSKIP("build the target rankscope first");
    const auto status_of = [&](const QStringList& arguments, QByteArray* errors) {
        QProcess process;
        QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
        for (const char* name : {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"})
            environment.remove(QLatin1String(name));
        process.setProcessEnvironment(environment);
        process.start(program, arguments);
        if (!process.waitForFinished(60000) || process.exitStatus() != QProcess::NormalExit)
            return -1;
        *errors = process.readAllStandardError();
        return process.exitCode();
    };
    QByteArray errors;
    QCOMPARE(status_of({QStringLiteral("--help")}, &errors), 0);
    QCOMPARE(status_of({QStringLiteral("--bogus")}, &errors), 2);
    QVERIFY2(errors.contains("bogus"), errors.constData());
    QCOMPARE(status_of({}, &errors), 5);
    QVERIFY2(errors.contains("no display"), errors.constData());
    QCOMPARE(status_of({QStringLiteral("--render"), QStringLiteral("channels"),
                        settings_.path(QStringLiteral("absent")), QStringLiteral("-o"),
                        settings_.path(QStringLiteral("x.png"))},
                       &errors),
             3);
}

QTEST_MAIN(TestCommandLine)
#include "test_command_line.moc"
