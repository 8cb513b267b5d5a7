// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/plots/token_text.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QApplication>
#include <QComboBox>
#include <QSignalSpy>
#include <QTest>

using namespace rankscope;
using namespace rankscope::test;

class TestActivationsPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void tokens_are_told_apart_data()
    {
        QTest::addColumn<QString>("token");
        QTest::addColumn<QString>("shown");
        QTest::newRow("word") << QStringLiteral("the") << QStringLiteral("the");
        QTest::newRow("space") << QStringLiteral(" the") << QString(QChar(0x2423)) + QStringLiteral("the");
        QTest::newRow("line end") << QStringLiteral("\n\n") << QStringLiteral("\\n\\n");
        QTest::newRow("bell") << QStringLiteral("\a") << QStringLiteral("\\u{7}");
        QTest::newRow("nothing") << QString() << QStringLiteral("“”");
        QTest::newRow("accent") << QStringLiteral("naïve") << QStringLiteral("naïve");
        QTest::newRow("zero width") << QString(QChar(0x200B)) << QStringLiteral("\\u{200B}");
        QTest::newRow("mark alone") << QString(QChar(0x0301)) << QStringLiteral("\\u{301}");
        QTest::newRow("no such character") << QString(QChar(0xFFFF)) << QStringLiteral("\\u{FFFF}");
    }

    void tokens_are_told_apart()
    {
        QFETCH(QString, token);
        QFETCH(QString, shown);
        QFont font(QStringLiteral("DejaVu Sans"));
        if (!QFontMetrics(font).inFontUcs4(0x2423))
            QSKIP("the font DejaVu Sans is not here");
        QCOMPARE(tokenText(token, QFontMetrics(font)), shown);
    }

    void uncovered_characters_are_escaped()
    {
        const QFontMetrics metrics{QFont(QStringLiteral("DejaVu Sans"))};
        for (const char32_t character : {U'世', U'🙂', U'𒀀'}) {
            const QString shown = tokenText(QString::fromUcs4(&character, 1), metrics);
            const bool covered = metrics.inFontUcs4(static_cast<uint>(character));
            QCOMPARE(shown.startsWith(QLatin1String("\\u{")), !covered);
        }
    }

    void a_massive_token_is_on_screen_and_listed()
    {
        ActivationsPlot plot;
        plot.setActivations(activations_of(24, 3000), k_layer);
        show(plot);
        QCOMPARE(plot.tokenCount(), 24);
        const int x = at(plot, 1000.0, 0.0).x();
        QVERIFY(pixels_near(plot, x, 2, Theme::magnitude(1.0)) > 5); // a token's height
        QVERIFY2(plot.readout().contains(QStringLiteral("massive activations after this block: 1")),
                 qPrintable(plot.readout()));
        const auto boxes = plot.findChildren<QComboBox*>();
        const auto* strong = *std::find_if(boxes.begin(), boxes.end(), [](const QComboBox* box) {
            return box->accessibleName().contains(QStringLiteral("largest"));
        });
        QCOMPARE(strong->count(), 3);
        QVERIFY2(strong->itemText(0).contains(QStringLiteral("1800")), qPrintable(strong->itemText(0)));
        QCOMPARE(plot.tokenTexts().mid(3, 1), QStringList{QStringLiteral("\\n")});
        QCOMPARE(plot.table().size(), qsizetype(3));
    }

    void cells_are_walked()
    {
        ActivationsPlot plot;
        plot.setActivations(activations_of(10, 64), k_layer);
        show(plot);
        QSignalSpy selected(&plot, &ActivationsPlot::channelSelected);
        QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 20.0, 3.0));
        QCOMPARE(selected.constLast()[0].toInt(), 20);
        QVERIFY2(plot.readout().contains(QStringLiteral("Token 3 \\n, channel 20")),
                 qPrintable(plot.readout()));
        QTest::keyClick(&plot, Qt::Key_Down);
        QVERIFY(plot.readout().contains(QStringLiteral("Token 4 ")));
        for (int i = 0; i < 30; ++i)
            QTest::keyClick(&plot, Qt::Key_Down);
        QVERIFY(plot.readout().contains(QStringLiteral("Token 9 "))); // it ends at the last one
        QTest::keyClick(&plot, Qt::Key_Escape);
        QCOMPARE(selected.constLast()[0].toInt(), -1);
        QTest::keyClick(&plot, Qt::Key_L);
        QTest::keyClick(&plot, Qt::Key_C);
        canvas(plot)->replot();
    }

    void options_go_round()
    {
        ActivationsPlot plot;
        plot.setOptions({{QStringLiteral("tokens"), QStringLiteral("48")},
                         {QStringLiteral("stretch"), 7},
                         {QStringLiteral("text"), QStringLiteral("/a/b.txt")}});
        QCOMPARE(plot.options().value(QStringLiteral("tokens")).toInt(), 48);
        QCOMPARE(plot.options().value(QStringLiteral("stretch")).toInt(), 7);
        QCOMPARE(plot.options().value(QStringLiteral("text")).toString(), QStringLiteral("/a/b.txt"));
        plot.setOptions({{QStringLiteral("tokens"), -3}});
        QCOMPARE(plot.options().value(QStringLiteral("tokens")).toInt(), 2);
    }

    void an_input_without_tokens_says_so()
    {
        auto picture = activations_of(4, 8);
        picture->values = std::make_shared<MagnitudePyramid>();
        picture->activations.positions.clear();
        picture->activations.texts.clear();
        picture->activations.strongest.clear();
        ActivationsPlot plot;
        plot.setActivations(picture, QStringLiteral("experts.7"));
        show(plot);
        QVERIFY(plot.message().contains(QStringLiteral("experts.7")));
        QVERIFY(plot.table().isEmpty());
        plot.setActivations(nullptr, {});
    }
};

QTEST_MAIN(TestActivationsPlot)
#include "test_activations_plot.moc"
