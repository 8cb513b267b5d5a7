// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QAction>
#include <QApplication>
#include <QClipboard>
#include <QComboBox>
#include <QContextMenuEvent>
#include <QDir>
#include <QLabel>
#include <QMenu>
#include <QSignalSpy>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>

#include <cmath>
#include <random>

using namespace rankscope;
using namespace rankscope::test;

class TestPlots : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void numbers_data();
    void numbers();
    void pyramid_equals_brute_force();
    void errors_are_walked();
    void odd_errors();
    void exports_data();
    void exports();
    void export_refuses();
    void export_replaces_and_leaves_no_parts();
    void follows_the_theme();
    void zoom_and_fit();
    void menu_and_table();
    void message_and_busy();
    void is_described();
};

void TestPlots::numbers_data()
{
    QTest::addColumn<QString>("text");
    QTest::addColumn<QString>("expected");
    QTest::newRow("zero") << formatNumber(0.0) << "0";
    QTest::newRow("plain") << formatNumber(0.03125) << "0.03125";
    QTest::newRow("four digits") << formatNumber(1.0 / 3.0) << "0.3333";
    QTest::newRow("integer digits are kept whole") << formatNumber(123456.0) << "123500";
    QTest::newRow("rounds up a decade") << formatNumber(9999.6) << "10000";
    QTest::newRow("small") << formatNumber(1.23449e-7) << "1.234e-7";
    QTest::newRow("large") << formatNumber(-2.5e12) << "-2.5e12";
    QTest::newRow("nan") << formatNumber(std::nan("")) << "NaN";
    QTest::newRow("infinity") << formatNumber(-HUGE_VAL) << "−∞";
    QTest::newRow("exact") << formatExact(0.1) << "0.1";
    QTest::newRow("percent") << formatPercent(0.38) << "38 %";
    QTest::newRow("percent near one") << formatPercent(0.9996) << "99.96 %";
    QTest::newRow("percent nearly all") << formatPercent(0.999999) << "> 99.99 %";
    QTest::newRow("percent one") << formatPercent(1.0) << "100 %";
    QTest::newRow("percent tiny") << formatPercent(1e-9) << "< 0.01 %";
    QTest::newRow("percent none") << formatPercent(0.0) << "0 %";
    QTest::newRow("count") << formatCount(-1234567) << "-1,234,567";
    QTest::newRow("short count") << formatCount(999) << "999";
    QTest::newRow("tick") << formatTick(2e-7, true) << "2·10⁻⁷";
    QTest::newRow("power") << formatTick(1e12, true) << "10¹²";
    QTest::newRow("plain tick") << formatTick(-0.05, false) << "−0.05";
}

void TestPlots::numbers()
{
    QFETCH(QString, text);
    QTEST(text, "expected");
}

void TestPlots::pyramid_equals_brute_force()
{
    std::mt19937 random(7);
    std::uniform_real_distribution<double> value(-1.0, 1.0);
    for (const int size : {0, 1, 15, 16, 17, 100, 1023}) {
        QVector<double> values(size);
        for (double& v : values)
            v = random() % 9 == 0 ? std::nan("") : value(random);
        const MinMaxPyramid pyramid(values);
        for (int trial = 0; trial < 400; ++trial) {
            const int first = static_cast<int>(random() % static_cast<unsigned>(size + 3)) - 1;
            const int last = first + static_cast<int>(random() % static_cast<unsigned>(size + 3));
            double low = HUGE_VAL;
            double high = -HUGE_VAL;
            for (int i = std::max(first, 0); i < std::min(last, size); ++i) {
                if (!std::isfinite(values[i]))
                    continue;
                low = std::min(low, values[i]);
                high = std::max(high, values[i]);
            }
            const MinMaxPyramid::Extremes found = pyramid.over(first, last);
            QCOMPARE(found.empty(), !(high > -HUGE_VAL));
            if (found.empty())
                continue;
            QCOMPARE(values[found.min_at], low);
            QCOMPARE(values[found.max_at], high);
        }
    }
}

void TestPlots::errors_are_walked()
{
    ErrorPlot plot;
    plot.setTraces(error_traces(3));
    show(plot);
    QVERIFY2(plot.readout().startsWith(QStringLiteral("3 traces, lowest: odlri falls from 0.05 to ")),
             qPrintable(plot.readout()));
    QTest::keyClick(&plot, Qt::Key_Right);
    QVERIFY(plot.readout().contains(QStringLiteral("odlri, half-step 0")));
    QTest::keyClick(&plot, Qt::Key_Right);
    QVERIFY(plot.readout().contains(QStringLiteral("odlri, half-step 1")));
    QTest::keyClick(&plot, Qt::Key_Down);
    QVERIFY(plot.readout().contains(QStringLiteral("caldera, half-step 1")));
    QTest::keyClick(&plot, Qt::Key_Right, Qt::ShiftModifier);
    QVERIFY(plot.readout().contains(QStringLiteral("caldera, half-step 17")));
    QTest::keyClick(&plot, Qt::Key_Escape);
    QVERIFY(!plot.readout().contains(QStringLiteral("half-step")));
    const ErrorTrace& trace = plot.traces().at(2);
    QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier,
                      at(plot, trace.steps[5], trace.errors[5]));
    QVERIFY(plot.readout().contains(QStringLiteral("svd_residual, half-step 5")));
    QCOMPARE(canvas(plot)->legend->itemCount(), 3);
    plot.setTraces(error_traces(12));
    canvas(plot)->replot();
    QCOMPARE(plot.table().size(), 1 + 12 * 21);
    QVERIFY(plot.readout().contains(QStringLiteral("4 of them drawn thin")));
}

void TestPlots::odd_errors()
{
    ErrorPlot plot;
    show(plot);
    QVERIFY(!plot.message().isEmpty());
    const ErrorTrace broken{
        k_layer, QStringLiteral("odlri"), {0, 1, 2, 3, 4}, {0.5, std::nan(""), 0.0, HUGE_VAL, 0.25}};
    plot.setTraces({broken});
    QVERIFY2(plot.readout().contains(QStringLiteral("3 values are zero, NaN or infinity")),
             qPrintable(plot.readout()));
    QTest::keyClick(&plot, Qt::Key_Right);
    QTest::keyClick(&plot, Qt::Key_Right); // over the hole
    QVERIFY2(plot.readout().contains(QStringLiteral("half-step 4: 0.25")), qPrintable(plot.readout()));
    QTest::keyClick(&plot, Qt::Key_Right);
    QVERIFY(plot.readout().contains(QStringLiteral("half-step 4: 0.25")));
    plot.setTraces({{k_layer, QStringLiteral("rtn"), {0.0}, {0.125}}});
    canvas(plot)->replot();
    QVERIFY(plot.readout().contains(QStringLiteral("stays at 0.125")));
    plot.setTraces({{k_layer, QStringLiteral("rtn"), {0.0, 1.0, 2.0}, {0.125}}}); // lengths differ
    QCOMPARE(plot.table().size(), 2);
    plot.setTraces({{k_layer, QStringLiteral("rtn"), {0.0}, {0.0}}});
    QVERIFY(!plot.message().isEmpty());
    plot.setTraces({});
    canvas(plot)->replot();
}

void TestPlots::exports_data()
{
    QTest::addColumn<QString>("suffix");
    QTest::addColumn<QByteArray>("start");
    QTest::newRow("pdf") << "pdf" << QByteArray("%PDF-");
    QTest::newRow("png") << "png" << QByteArray("\x89PNG");
    QTest::newRow("svg") << "svg" << QByteArray("<?xml");
    QTest::newRow("csv") << "csv" << QByteArray("channel,weighted energy,");
    QTest::newRow("upper case") << "PNG" << QByteArray("\x89PNG");
}

void TestPlots::exports()
{
    QFETCH(QString, suffix);
    QFETCH(QByteArray, start);
    const QTemporaryDir folder;
    for (const bool shown : {false, true}) { // the command line renders without ever showing a window
        Theme::instance().apply(*qApp, Theme::Choice::Dark);
        ChannelPlot plot;
        plot.setProfile(channel_profile_of(300), k_layer);
        if (shown)
            show(plot);
        const QString file = folder.filePath(QStringLiteral("größe %1.%2").arg(shown).arg(suffix));
        QString error;
        QVERIFY2(plot.exportTo(file, &error), qPrintable(error));
        QFile written(file);
        QVERIFY(written.open(QIODevice::ReadOnly));
        const QByteArray content = written.readAll();
        QVERIFY2(content.startsWith(start), content.left(40).constData());
        if (suffix == QLatin1String("csv")) {
            const QList<QByteArray> lines = content.trimmed().split('\n');
            QCOMPARE(lines.size(), 301);
            QCOMPARE(QString::fromUtf8(lines.at(5)), plot.table().at(5).join(QLatin1Char(',')));
        } else if (suffix.toLower() == QLatin1String("png")) {
            const QImage picture = QImage::fromData(content);
            QVERIFY(picture.width() >= 2 * 700);
            QCOMPARE(picture.pixelColor(2, 2), Theme::color(Theme::Token::Base, true)); // as on screen
        } else if (suffix == QLatin1String("svg")) {
            QVERIFY(content.contains("down_proj"));
            QVERIFY(content.contains("channels carry")); // the readout goes with the picture
            QVERIFY(content.contains("#7a160c"));        // for paper: the light palette's outliers
        }
        QCOMPARE(canvas(plot)->axisRect()->backgroundBrush().color(), Theme::color(Theme::Token::Base, true));
    }
    QCOMPARE(QDir(folder.path()).entryList(QDir::Files | QDir::Hidden).size(), 2);
}

void TestPlots::export_refuses()
{
    const QTemporaryDir folder;
    ChannelPlot plot;
    QString error;
    QVERIFY(!plot.exportTo(folder.filePath(QStringLiteral("a.png")), &error));
    QVERIFY2(error.contains(QStringLiteral("empty")), qPrintable(error));
    plot.setProfile(channel_profile_of(30), k_layer);
    QVERIFY(!plot.exportTo(folder.filePath(QStringLiteral("a.bmp")), &error));
    QVERIFY2(error.contains(QStringLiteral(".pdf")), qPrintable(error));
    QFile file(folder.filePath(QStringLiteral("file")));
    QVERIFY(file.open(QIODevice::WriteOnly));
    QVERIFY(!plot.exportTo(folder.filePath(QStringLiteral("file/a.png")), &error)); // a file is no folder
    QVERIFY2(error.contains(QStringLiteral("file")), qPrintable(error));
    QVERIFY(!plot.exportTo(folder.filePath(QStringLiteral("b.png/")), nullptr));
    QCOMPARE(QDir(folder.path()).entryList(QDir::AllEntries | QDir::NoDotAndDotDot), QStringList{"file"});
}

void TestPlots::export_replaces_and_leaves_no_parts()
{
    const QTemporaryDir folder;
    const QString file = folder.filePath(QStringLiteral("a.csv"));
    ChannelPlot plot;
    plot.setProfile(channel_profile_of(30), k_layer);
    QVERIFY(plot.exportTo(file, nullptr));
    plot.setProfile(channel_profile_of(7), k_layer);
    QVERIFY(plot.exportTo(file, nullptr));
    QFile written(file);
    QVERIFY(written.open(QIODevice::ReadOnly));
    QCOMPARE(written.readAll().count('\n'), 8);
    QCOMPARE(QDir(folder.path()).entryList(QDir::AllEntries | QDir::NoDotAndDotDot | QDir::Hidden).size(), 1);
}

void TestPlots::follows_the_theme()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(64, true), k_layer, 64, 64);
    show(plot);
    for (const bool dark : {true, false}) {
        Theme::instance().apply(*qApp, dark ? Theme::Choice::Dark : Theme::Choice::Light);
        canvas(plot)->replot();
        const QImage picture = canvas(plot)->grab().toImage();
        QCOMPARE(picture.pixelColor(1, 1), Theme::color(Theme::Token::Base, dark));
        QCOMPARE(canvas(plot)->xAxis->tickLabelColor(), Theme::color(Theme::Token::Text, dark));
        QCOMPARE(canvas(plot)->yAxis->grid()->pen().color(), Theme::color(Theme::Token::Grid, dark));
        QCOMPARE(canvas(plot)->legend->textColor(), Theme::color(Theme::Token::Text, dark));
        QCOMPARE(canvas(plot)->graph(0)->pen().color(), Theme::color(Theme::Token::SeriesWeight, dark));
    }
}

void TestPlots::zoom_and_fit()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(512, true), k_layer, 512, 512);
    show(plot);
    const QCPRange whole = canvas(plot)->xAxis->range();
    QTest::keyClick(&plot, Qt::Key_Minus); // never beyond the data
    QVERIFY(std::fabs(canvas(plot)->xAxis->range().size() - whole.size()) < 1e-9);
    QTest::keyClick(&plot, Qt::Key_Plus);
    QTest::keyClick(&plot, Qt::Key_Plus);
    QVERIFY(canvas(plot)->xAxis->range().size() < 0.6 * whole.size());
    drag(plot, QPoint(500, 300), QPoint(2000, 300)); // panning stops at the border
    QVERIFY(canvas(plot)->xAxis->range().lower >= whole.lower - 1e-9);
    QTest::keyClick(&plot, Qt::Key_Home);
    QVERIFY(std::fabs(canvas(plot)->xAxis->range().size() - whole.size()) < 1e-9);
    for (int i = 0; i < 100; ++i)
        QTest::keyClick(&plot, Qt::Key_Plus);
    canvas(plot)->replot();
    QTest::keyClick(&plot, Qt::Key_Escape);
    QVERIFY(std::fabs(canvas(plot)->xAxis->range().size() - whole.size()) < 1e-9);
}

void TestPlots::menu_and_table()
{
    ChannelPlot plot;
    plot.setProfile(channel_profile_of(20), k_layer);
    show(plot);
    QContextMenuEvent wish(QContextMenuEvent::Keyboard, QPoint(50, 50), plot.mapToGlobal(QPoint(50, 50)));
    QApplication::sendEvent(&plot, &wish);
    auto* menu = plot.findChild<QMenu*>(QStringLiteral("plotMenu"));
    QVERIFY(menu != nullptr);
    QAction* table = nullptr;
    QStringList texts;
    for (QAction* action : menu->actions()) {
        texts.append(action->text());
        if (action->text() == QLatin1String("View as table"))
            table = action;
    }
    QVERIFY(texts.contains(QStringLiteral("Export…")));
    QVERIFY(texts.contains(QStringLiteral("Copy image")));
    QVERIFY(table != nullptr);
    table->trigger();
    menu->close();
    auto* view = plot.window()->findChild<QTableView*>();
    QVERIFY(view != nullptr);
    QCOMPARE(view->model()->rowCount(), 20);
    QCOMPARE(view->model()->index(3, 0).data().toString(), QStringLiteral("3"));
    QVERIFY(view->model()->index(3, 1).data().toString().size() <= 8);
    view->window()->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(view->window()));
    view->setFocus();
    view->selectRow(3);
    QTest::keyClick(view, Qt::Key_C, Qt::ControlModifier);
    QCOMPARE(QGuiApplication::clipboard()->text(), plot.table().at(4).join(QLatin1Char('\t')));
    plot.copyImage();
    QVERIFY(QGuiApplication::clipboard()->image().width() >= 2 * 700);
}

void TestPlots::message_and_busy()
{
    SpectrumPlot plot;
    QVERIFY(!plot.message().isEmpty());
    plot.setSpectrum(layer_spectrum_of(64, true), k_layer, 64, 64);
    show(plot);
    QVERIFY(plot.message().isEmpty());
    const QImage before = canvas(plot)->grab().toImage();
    plot.setBusy(true);
    const QImage dimmed = canvas(plot)->grab().toImage();
    QVERIFY(before != dimmed);
    QTest::keyClick(&plot, Qt::Key_Right); // dimmed, not dead
    QCOMPARE(plot.rank(), 1);
    plot.setBusy(false);
    plot.setRank(0);
    QCOMPARE(canvas(plot)->grab().toImage(), before);
    QSignalSpy link(&plot, &PlotView::messageLinkActivated);
    plot.showMessage(QStringLiteral("No calibration data. <a href=\"calibrate\">Calibrate</a>"));
    QCOMPARE(plot.accessibleDescription(), QStringLiteral("No calibration data. Calibrate"));
    auto* label = plot.findChild<QLabel*>(QStringLiteral("plotMessage"));
    QVERIFY(label->isVisible());
    Q_EMIT label->linkActivated(QStringLiteral("calibrate"));
    QCOMPARE(link.count(), 1);
    plot.showMessage({});
    QVERIFY(!label->isVisible());
    QVERIFY(plot.accessibleDescription().contains(k_layer));
}

void TestPlots::is_described()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(64, true), k_layer, 64, 64);
    QVERIFY(plot.accessibleName().contains(k_layer));
    QVERIFY2(plot.accessibleDescription().startsWith(
                 QStringLiteral("Spectrum of %1: 90 % of the energy of W·H^½ in ").arg(k_layer)),
             qPrintable(plot.accessibleDescription()));
    plot.setRank(5);
    QVERIFY(plot.accessibleDescription().contains(QStringLiteral("rank 5")));
    for (const QComboBox* box : plot.findChildren<QComboBox*>())
        QVERIFY(!box->accessibleName().isEmpty());
}

QTEST_MAIN(TestPlots)
#include "test_plots.moc"
