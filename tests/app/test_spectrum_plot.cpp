// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QSignalSpy>
#include <QApplication>
#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

class TestSpectrumPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void rank_is_dragged();
    void rank_drag_is_undone_by_escape();
    void rank_keys();
    void rank_is_clamped();
    void figures_of_a_rank();
    void spectrum_on_a_log_rank_axis();
    void odd_spectra_data();
    void odd_spectra();
};

void TestSpectrumPlot::rank_is_dragged()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(512, true), k_layer, 512, 1376);
    plot.setRank(100);
    show(plot);
    QSignalSpy changed(&plot, &SpectrumPlot::rankChanged);
    QSignalSpy committed(&plot, &SpectrumPlot::rankCommitted);
    drag(plot, at(plot, 100.5, 1.0) + QPoint(-7, 0), at(plot, 300.5, 5.0));
    QVERIFY(std::abs(plot.rank() - 300) <= 1);
    QVERIFY(changed.count() >= 3);
    QCOMPARE(committed.count(), 1);
    QCOMPARE(committed.at(0).at(0).toInt(), plot.rank());
    QCOMPARE(changed.last().at(0).toInt(), plot.rank());
    // 12 px beside the cursor nothing is grabbed.
    const int rank = plot.rank();
    drag(plot, at(plot, rank + 0.5, 1.0) + QPoint(12, 0), at(plot, 50.5, 1.0));
    QCOMPARE(plot.rank(), rank);
    drag(plot, at(plot, rank + 0.5, 1.0), QPoint(-300, 200));
    QCOMPARE(plot.rank(), 0);
    drag(plot, at(plot, 0.5, 1.0), QPoint(5000, 200));
    QCOMPARE(plot.rank(), 512);
    QCOMPARE(committed.count(), 3);
}

void TestSpectrumPlot::rank_drag_is_undone_by_escape()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(512, true), k_layer, 512, 512);
    plot.setRank(100);
    show(plot);
    QSignalSpy committed(&plot, &SpectrumPlot::rankCommitted);
    QTest::mousePress(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 100.5, 1.0));
    QTest::mouseMove(canvas(plot), at(plot, 200.5, 1.0));
    QVERIFY(plot.rank() > 190);
    QTest::keyClick(&plot, Qt::Key_Escape);
    QCOMPARE(plot.rank(), 100);
    QTest::mouseRelease(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 200.5, 1.0));
    QCOMPARE(plot.rank(), 100);
    QVERIFY(committed.isEmpty());
}

void TestSpectrumPlot::rank_keys()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(64, true), k_layer, 64, 172);
    plot.setRank(20);
    show(plot);
    QSignalSpy committed(&plot, &SpectrumPlot::rankCommitted);
    QTest::keyClick(&plot, Qt::Key_Right);
    QCOMPARE(plot.rank(), 21);
    QTest::keyClick(&plot, Qt::Key_Left, Qt::ShiftModifier);
    QCOMPARE(plot.rank(), 5);
    QTest::keyClick(&plot, Qt::Key_Left, Qt::ShiftModifier);
    QCOMPARE(plot.rank(), 0);
    QTest::keyClick(&plot, Qt::Key_BracketRight);
    QCOMPARE(plot.rank(), 1);
    QTest::keyClick(&plot, Qt::Key_BracketRight, Qt::ShiftModifier);
    QCOMPARE(plot.rank(), 17);
    QTest::keyClick(&plot, Qt::Key_BracketLeft);
    QCOMPARE(plot.rank(), 16);
    QCOMPARE(committed.count(), 6);
    plot.stepRank(1'000'000);
    QCOMPARE(plot.rank(), 64);
    QCOMPARE(committed.count(), 7);
    plot.stepRank(5); // nowhere to go: nothing to tell
    QCOMPARE(committed.count(), 7);
}

void TestSpectrumPlot::rank_is_clamped()
{
    SpectrumPlot plot;
    QSignalSpy changed(&plot, &SpectrumPlot::rankChanged);
    plot.setRank(4000); // before any spectrum: remembered
    plot.setSpectrum(layer_spectrum_of(64, false), k_layer, 64, 172);
    QCOMPARE(plot.rank(), 64);
    plot.setSpectrum(layer_spectrum_of(512, false), k_layer, 512, 512);
    QCOMPARE(plot.rank(), 512);
    plot.setRank(-3);
    QCOMPARE(plot.rank(), 0);
    plot.setSpectrum(nullptr, {}, 0, 0);
    QCOMPARE(plot.largestRank(), 0);
    QVERIFY(changed.isEmpty()); // only the user's hand
}

void TestSpectrumPlot::figures_of_a_rank()
{
    SpectrumPlot plot;
    const auto spectrum = layer_spectrum_of(64, true);
    plot.setSpectrum(spectrum, k_layer, 64, 172);
    for (const int rank : {0, 1, 8, 63, 64}) {
        const double tail = spectrum->weighted_residual.tail(64 - rank).squaredNorm();
        QVERIFY(std::fabs(plot.predictedError(rank) - std::sqrt(tail) / spectrum->weighted_norm) < 1e-12);
        QVERIFY(std::fabs(plot.tailEnergy(rank) - tail / spectrum->weighted_residual.squaredNorm()) < 1e-12);
        QCOMPARE(plot.factorBytes(rank), 2LL * rank * (64 + 172));
    }
    plot.setRank(8);
    QVERIFY2(plot.readout().startsWith(QStringLiteral("Rank 8 of 64")), qPrintable(plot.readout()));
    QVERIFY2(plot.readout().contains(QStringLiteral("3.78 kB")), qPrintable(plot.readout()));
    QVERIFY(plot.readout().contains(formatNumber(plot.predictedError(8))));
    // Without moments and without Q the view says less, and nothing wrong.
    auto bare = layer_spectrum_of(64, false);
    plot.setSpectrum(bare, k_layer, 64, 172);
    QVERIFY(std::fabs(plot.predictedError(8) - bare->residual.tail(56).norm() / bare->weight_norm) < 1e-12);
    bare = layer_spectrum_of(64, false);
    bare->residual.resize(0);
    plot.setSpectrum(bare, k_layer, 64, 172);
    QVERIFY(std::isnan(plot.predictedError(8)));
    QVERIFY(!plot.readout().contains(QStringLiteral("predicted")));
}

void TestSpectrumPlot::spectrum_on_a_log_rank_axis()
{
    SpectrumPlot plot;
    plot.setSpectrum(layer_spectrum_of(4096, true), k_layer, 4096, 4096);
    plot.setRank(64);
    show(plot);
    QTest::keyClick(&plot, Qt::Key_L);
    QVERIFY(plot.isLogRank());
    canvas(plot)->replot();
    drag(plot, at(plot, 64.5, 1.0), at(plot, 8.5, 1.0));
    QCOMPARE(plot.rank(), 8);
    drag(plot, at(plot, 8.5, 1.0), at(plot, 0.5, 1.0));
    QCOMPARE(plot.rank(), 0);
    // The small ranks, where it matters, are all drawn.
    const QCPGraph* weight = canvas(plot)->graph(0);
    for (int i = 0; i < 20; ++i)
        QCOMPARE(weight->data()->at(i)->key, i + 1.0);
    QVERIFY(weight->data()->size() < 3 * canvas(plot)->width());
}

void TestSpectrumPlot::odd_spectra_data()
{
    QTest::addColumn<int>("size");
    QTest::addColumn<double>("value");
    for (const int size : {0, 1, 2, 8192})
        for (const double value : {0.0, 1.0, 1e-300, 1e300, std::nan(""), HUGE_VAL, -1.0})
            QTest::addRow("%d × %g", size, value) << size << value;
}

void TestSpectrumPlot::odd_spectra()
{
    QFETCH(int, size);
    QFETCH(double, value);
    SpectrumPlot plot;
    auto spectrum = std::make_shared<LayerSpectrum>();
    spectrum->weight = VectorD::Constant(size, value);
    spectrum->residual = VectorD::Constant(size, value);
    spectrum->weight_norm = value;
    plot.setSpectrum(spectrum, k_layer, size, 2 * size);
    show(plot);
    QCOMPARE(plot.message().isEmpty(), size > 0);
    QCOMPARE(plot.largestRank(), size);
    for (const bool log : {false, true}) {
        plot.setLogRank(log);
        plot.setRelative(log);
        for (const int key :
             {Qt::Key_Right, Qt::Key_Up, Qt::Key_Plus, Qt::Key_Minus, Qt::Key_Home, Qt::Key_Escape})
            QTest::keyClick(&plot, static_cast<Qt::Key>(key));
        drag(plot, QPoint(400, 250), QPoint(100, 100));
        canvas(plot)->replot();
    }
    QVERIFY(plot.rank() >= 0 && plot.rank() <= size);
    QCOMPARE(plot.table().size(), size > 0 ? size + 1 : 0);
    QVERIFY(!plot.summary().isEmpty());
    // Fewer values than the shape promises: never read past them.
    plot.setSpectrum(spectrum, k_layer, size + 100, size + 100);
    plot.setRank(size + 100);
    QVERIFY(!(plot.tailEnergy(size + 100) > 1.0));
    canvas(plot)->replot();
}

QTEST_MAIN(TestSpectrumPlot)
#include "test_spectrum_plot.moc"
