// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/grid_marks.h"
#include "app/workbench/plots/histogram_plot.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QApplication>
#include <QClipboard>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTest>

using namespace rankscope;
using namespace rankscope::test;

class TestHistogramPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void levels_and_dead_zone_are_on_screen()
    {
        const auto histogram = histogram_of(false);
        HistogramPlot plot;
        plot.setHistogram(histogram, k_layer);
        show(plot);
        const QImage picture = canvas(plot)->grab().toImage();
        const QRect inner = canvas(plot)->axisRect()->rect();
        const QRgb ink = Theme::color(Theme::Token::Text, false).rgb();
        for (const double level : histogram->fit.levels) {
            const int x = qRound(canvas(plot)->xAxis->coordToPixel(level));
            int found = 0;
            for (int column = x - 1; column <= x + 1; ++column)
                found += picture.pixel(column, inner.bottom() - 4) == ink ? 1 : 0;
            QVERIFY2(found > 0, qPrintable(QStringLiteral("no tick at %1").arg(level)));
        }
        const auto color_at = [&](double value) {
            return picture.pixelColor(qRound(canvas(plot)->xAxis->coordToPixel(value)), inner.top() + 30);
        };
        const double middle = 0.5 * (histogram->fit.dead_low + histogram->fit.dead_high);
        QVERIFY(color_at(middle) != Theme::color(Theme::Token::Base, false));
        QVERIFY2(plot.readout().contains(QStringLiteral("become zero")), qPrintable(plot.readout()));
    }

    void the_remainder_and_another_file_are_drawn()
    {
        const auto histogram = histogram_of(true);
        HistogramPlot plot;
        plot.setHistogram(histogram, k_layer);
        show(plot);
        QCOMPARE(named(plot), 2);
        QVERIFY2(plot.readout().contains(QStringLiteral("W − L·R")), qPrintable(plot.readout()));
        QCOMPARE(plot.table().first().size(), 4);
        QCOMPARE(plot.table().size(), qsizetype(histogram->values[0].histogram.counts.size()) + 1);
        plot.setOther(histogram_of(false), QStringLiteral("other.gguf"));
        QCOMPARE(named(plot), 3);
        QVERIFY2(plot.readout().contains(QStringLiteral("other.gguf")), qPrintable(plot.readout()));
        QVERIFY(canvas(plot)->graph(3)->pen().style() == Qt::CustomDashLine);
        plot.setOther(nullptr, {});
        QCOMPARE(named(plot), 2);
    }

    void groups_are_chosen_by_hand()
    {
        HistogramPlot plot;
        plot.setHistogram(histogram_of(false), k_layer);
        show(plot);
        QSignalSpy changed(&plot, &PlotView::optionsChanged);
        QTest::keyClick(&plot, Qt::Key_Right);
        QVERIFY(plot.choice() == (GroupChoice{-1, 0}));
        QTest::keyClick(&plot, Qt::Key_Down);
        QVERIFY(plot.choice() == (GroupChoice{0, 0}));
        QCOMPARE(changed.count(), 2);
        for (int i = 0; i < 90; ++i)
            QTest::keyClick(&plot, Qt::Key_Right);
        QVERIFY(plot.choice() == (GroupChoice{0, 3})); // it ends at the last one
        QCOMPARE(plot.options().value(QStringLiteral("group")).toInt(), 3);
        QTest::keyClick(&plot, Qt::Key_Escape);
        QVERIFY(plot.choice() == GroupChoice{});
        QTest::keyClick(&plot, Qt::Key_N);
        QVERIFY(plot.options().value(QStringLiteral("steps")).toBool());
        QTest::keyClick(&plot, Qt::Key_L);
        QVERIFY(plot.isLogarithmic());
        plot.setOptions({{QStringLiteral("row"), QStringLiteral("2")}, {QStringLiteral("steps"), false}});
        plot.setHistogram(histogram_of(false), k_layer);
        QVERIFY(plot.choice() == (GroupChoice{2, -1}));
    }

    void odd_layers_are_drawn()
    {
        HistogramPlot plot;
        show(plot, QSize(400, 300));
        QVERIFY(plot.table().isEmpty());
        for (const float value : {0.0F, 3.0F, std::numeric_limits<float>::quiet_NaN()}) {
            const Matrix weight = Matrix::Constant(3, 5, value);
            const auto backend = make_cpu_backend();
            const auto data =
                layer_histogram(weight, nullptr, UniformGrid{2, -1}, {}, *backend, silent_monitor());
            QVERIFY(data.has_value());
            plot.setHistogram(std::make_shared<LayerHistogram>(*data), k_layer);
            plot.setLogarithmic(!plot.isLogarithmic());
            canvas(plot)->replot();
            QVERIFY(!plot.readout().isEmpty());
        }
        plot.setHistogram(nullptr, {});
        QVERIFY(plot.readout().isEmpty());
    }

    void the_command_is_copied()
    {
        HistogramPlot plot;
        plot.setHistogram(histogram_of(false), k_layer);
        QGuiApplication::clipboard()->clear();
        plot.copyCommand();
        QVERIFY(QGuiApplication::clipboard()->text().isEmpty()); // none yet
        plot.setCommand(QStringLiteral("rankscope --render histogram x -o x.pdf"));
        plot.copyCommand();
        QCOMPARE(QGuiApplication::clipboard()->text(), plot.command());
    }

private:
    /// Curves in the legend, whose last row may have empty cells.
    static int named(const PlotView& plot)
    {
        int count = 0;
        for (int i = 0; i < canvas(plot)->legend->itemCount(); ++i)
            count += canvas(plot)->legend->item(i) != nullptr ? 1 : 0;
        return count;
    }
    static std::shared_ptr<LayerHistogram> histogram_of(bool run) { return layer_histogram_of(64, 256, run); }
};

QTEST_MAIN(TestHistogramPlot)
#include "test_histogram_plot.moc"
