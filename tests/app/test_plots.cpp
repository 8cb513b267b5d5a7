// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/number_format.h"
#include "app/workbench/plots/qcp.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "tests/app/plot_samples.h"

#include <QAction>
#include <QApplication>
#include <QCheckBox>
#include <QClipboard>
#include <QComboBox>
#include <QDir>
#include <QLabel>
#include <QMenu>
#include <QSignalSpy>
#include <QStandardItemModel>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>

#include <random>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const QString k_layer = QStringLiteral("model.layers.3.mlp.down_proj");

QCustomPlot* canvas(const PlotView& view) { return view.findChild<QCustomPlot*>(); }

void show(PlotView& view, const QSize& size = QSize(800, 500))
{
    view.resize(size);
    view.show();
    view.activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(&view));
    view.setFocus();
    canvas(view)->replot();
}

QPoint at(const PlotView& view, double x, double y)
{
    return {qRound(canvas(view)->xAxis->coordToPixel(x)), qRound(canvas(view)->yAxis->coordToPixel(y))};
}

void drag(PlotView& view, QPoint from, QPoint to)
{
    QCustomPlot* plot = canvas(view);
    QTest::mouseMove(plot, from);
    QTest::mousePress(plot, Qt::LeftButton, Qt::NoModifier, from);
    for (int i = 1; i <= 4; ++i)
        QTest::mouseMove(plot, from + (to - from) * i / 4);
    QTest::mouseRelease(plot, Qt::LeftButton, Qt::NoModifier, to);
}

/// Pixels within `tolerance` columns of `x` and inside the axes that have `color`.
int pixels_near(const PlotView& view, int x, int tolerance, const QColor& color)
{
    const QImage picture = canvas(view)->grab().toImage();
    const QRect inner = canvas(view)->axisRect()->rect();
    int found = 0;
    for (int column = x - tolerance; column <= x + tolerance; ++column)
        for (int y = inner.top(); y < inner.bottom(); ++y)
            found += picture.valid(column, y) && picture.pixelColor(column, y).rgb() == color.rgb() ? 1 : 0;
    return found;
}

} // namespace

class TestPlots : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        QTest::failOnWarning(QRegularExpression(QStringLiteral("^(?!This plugin does not support).*$")));
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void numbers_data();
    void numbers();
    void pyramid_equals_brute_force();

    void channels_tell_who_carries_the_energy();
    void one_hot_channel_in_twenty_thousand_is_on_screen_data();
    void one_hot_channel_in_twenty_thousand_is_on_screen();
    void threshold_is_dragged();
    void threshold_of_the_largest_k_is_dragged();
    void channel_keys();
    void channel_is_clicked();
    void sorted_channels_fall();
    void channels_without_calibration();
    void channels_with_nan();
    void odd_channel_profiles_data();
    void odd_channel_profiles();

    void rank_is_dragged();
    void rank_drag_is_undone_by_escape();
    void rank_keys();
    void rank_is_clamped();
    void figures_of_a_rank();
    void spectrum_on_a_log_rank_axis();
    void odd_spectra_data();
    void odd_spectra();

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

void TestPlots::channels_tell_who_carries_the_energy()
{
    ChannelPlot plot;
    QSignalSpy changed(&plot, &ChannelPlot::outliersChanged);
    auto profile = channel_profile_of(100);
    profile->weighted_energy.setConstant(1.0);
    profile->weighted_energy[17] = 40.0;
    profile->weighted_energy[70] = 20.0;
    plot.setProfile(profile, k_layer);
    QCOMPARE(plot.outliers(), QVector<int>({17, 70}));
    QCOMPARE(changed.count(), 1);
    QCOMPARE(changed.takeFirst().at(0).value<QVector<int>>(), QVector<int>({17, 70}));
    QCOMPARE(plot.threshold(), 8.0);
    QVERIFY2(plot.readout().startsWith(
                 QStringLiteral("2 of 100 channels carry 38 % of weighted energy")), // 60 of 158
             qPrintable(plot.readout()));
    plot.setRule(ChannelPlot::Rule::TopK);
    plot.setTopK(1);
    QCOMPARE(plot.outliers(), QVector<int>({17}));
    plot.setTopK(3); // 98 channels tie for the third place: the first of them is taken
    QCOMPARE(plot.outliers(), QVector<int>({0, 17, 70}));
    plot.setTopK(1'000'000);
    QCOMPARE(plot.outliers().size(), 100);
    plot.setTopK(0);
    QVERIFY(plot.outliers().isEmpty());
    QVERIFY(changed.count() >= 4);
}

void TestPlots::one_hot_channel_in_twenty_thousand_is_on_screen_data()
{
    QTest::addColumn<int>("hot");
    QTest::addColumn<bool>("log");
    for (const int hot : {0, 1, 777, 12'345, 19'998, 19'999})
        for (const bool log : {false, true})
            QTest::addRow("%d %s", hot, log ? "log" : "linear") << hot << log;
}

void TestPlots::one_hot_channel_in_twenty_thousand_is_on_screen()
{
    QFETCH(int, hot);
    QFETCH(bool, log);
    ChannelPlot plot;
    auto profile = channel_profile_of(20'000);
    profile->weighted_energy.setConstant(1.0);
    profile->weighted_energy[hot] = 50.0;
    plot.setProfile(profile, k_layer);
    plot.setLogScale(log);
    show(plot);
    QCOMPARE(plot.devicePixelRatio(), 1.0);
    const int x = at(plot, hot, 1.0).x();
    const int high = pixels_near(plot, x, 1, Theme::instance().color(Theme::Token::Outlier));
    QVERIFY2(high > 100, qPrintable(QString::number(high)));
    // Were it below the threshold, it would still tower in the color of all others.
    plot.setTimesMedian(1000.0);
    QVERIFY(plot.outliers().isEmpty());
    canvas(plot)->replot();
    const QColor calm = Theme::instance().color(Theme::Token::SeriesWeight);
    const int elsewhere = hot < 10'000 ? at(plot, 15'000, 1.0).x() : at(plot, 5'000, 1.0).x();
    QVERIFY(pixels_near(plot, x, 1, calm) > pixels_near(plot, elsewhere, 1, calm) + 50);
}

void TestPlots::threshold_is_dragged()
{
    ChannelPlot plot;
    auto profile = channel_profile_of(200);
    for (Index j = 0; j < 200; ++j)
        profile->weighted_energy[j] = j < 190 ? 1.0 : 10.0 * static_cast<double>(j - 189); // 10, 20 … 100
    plot.setProfile(profile, k_layer);
    QCOMPARE(plot.outliers().size(), 10);
    show(plot);
    QSignalSpy changed(&plot, &ChannelPlot::outliersChanged);
    QSignalSpy selected(&plot, &ChannelPlot::channelSelected);
    drag(plot, at(plot, 100, plot.threshold()) + QPoint(0, 7),
         at(plot, 100, 55.0)); // 7 px beside the line still grabs
    QVERIFY2(std::fabs(plot.threshold() - 55.0) < 4.0, qPrintable(QString::number(plot.threshold())));
    QCOMPARE(plot.outliers(), QVector<int>({195, 196, 197, 198, 199}));
    QVERIFY(changed.count() >= 1);
    QVERIFY(selected.isEmpty()); // a drag is not a click
    QVERIFY(plot.readout().contains(QStringLiteral("5 of 200 channels")));
    // Far from the line nothing is grabbed.
    const double before = plot.threshold();
    drag(plot, at(plot, 100, 5.0), at(plot, 110, 3.0));
    QCOMPARE(plot.threshold(), before);
    // Out of the picture the line stops at the border.
    drag(plot, at(plot, 100, before), QPoint(at(plot, 100, before).x(), -500));
    QVERIFY(plot.outliers().isEmpty());
    QVERIFY(plot.threshold() <= canvas(plot)->yAxis->range().upper * 1.0001);
}

void TestPlots::threshold_of_the_largest_k_is_dragged()
{
    ChannelPlot plot;
    auto profile = channel_profile_of(200);
    for (Index j = 0; j < 200; ++j)
        profile->weighted_energy[j] = j < 190 ? 1.0 : 10.0 * static_cast<double>(j - 189);
    plot.setProfile(profile, k_layer);
    plot.setRule(ChannelPlot::Rule::TopK);
    plot.setLogScale(false);
    plot.setTopK(2);
    show(plot);
    drag(plot, at(plot, 50, plot.threshold()), at(plot, 50, 35.0));
    QCOMPARE(plot.topK(), 7); // 40 … 100
    QCOMPARE(plot.outliers().size(), 7);
}

void TestPlots::channel_keys()
{
    ChannelPlot plot;
    plot.setProfile(channel_profile_of(64), k_layer);
    show(plot);
    QSignalSpy selected(&plot, &ChannelPlot::channelSelected);
    QTest::keyClick(&plot, Qt::Key_Right);
    QCOMPARE(plot.selectedChannel(), 0);
    QTest::keyClick(&plot, Qt::Key_Right, Qt::ShiftModifier);
    QCOMPARE(plot.selectedChannel(), 16);
    QTest::keyClick(&plot, Qt::Key_Left);
    QCOMPARE(plot.selectedChannel(), 15);
    QCOMPARE(selected.count(), 3);
    QVERIFY(plot.readout().contains(QStringLiteral("Channel 15")));
    for (int i = 0; i < 10; ++i)
        QTest::keyClick(&plot, Qt::Key_Right, Qt::ShiftModifier);
    QCOMPARE(plot.selectedChannel(), 63);
    QTest::keyClick(&plot, Qt::Key_Return);
    QCOMPARE(selected.last().at(0).toInt(), 63);
    const double before = plot.threshold();
    QTest::keyClick(&plot, Qt::Key_Up);
    QVERIFY(plot.threshold() > before);
    QTest::keyClick(&plot, Qt::Key_Down);
    QVERIFY(std::fabs(plot.threshold() - before) < 1e-9 * before);
    QTest::keyClick(&plot, Qt::Key_Escape);
    QCOMPARE(plot.selectedChannel(), -1);
    QTest::keyClick(&plot, Qt::Key_L);
    QVERIFY(!plot.isLogScale());
}

void TestPlots::channel_is_clicked()
{
    ChannelPlot plot;
    plot.setProfile(channel_profile_of(64), k_layer);
    plot.setSorted(true);
    show(plot);
    QSignalSpy selected(&plot, &ChannelPlot::channelSelected);
    QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 40, 0.3));
    QCOMPARE(selected.count(), 1);
    const int channel = selected.at(0).at(0).toInt();
    QCOMPARE(plot.table().at(1 + 40).at(0), QString::number(channel)); // rows stand in drawing order
    QCOMPARE(plot.selectedChannel(), channel);
    // Among 20,000 the pixel shows the tallest of its channels, and that is the one that is meant.
    auto many = channel_profile_of(20'000);
    many->weighted_energy.setConstant(1.0);
    many->weighted_energy[12'345] = 50.0;
    plot.setSorted(false);
    plot.setProfile(many, k_layer);
    canvas(plot)->replot();
    QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 12'345, 1.1));
    QCOMPARE(plot.selectedChannel(), 12'345);
}

void TestPlots::sorted_channels_fall()
{
    ChannelPlot plot;
    const auto profile = channel_profile_of(333);
    plot.setProfile(profile, k_layer);
    plot.setSorted(true);
    const QVector<QStringList> rows = plot.table();
    QCOMPARE(rows.size(), 334);
    double before = HUGE_VAL;
    for (int i = 1; i < rows.size(); ++i) {
        const double value = profile->weighted_energy[rows[i][0].toInt()];
        QVERIFY(value <= before);
        QCOMPARE(rows[i][1].toDouble(), value); // full precision
        before = value;
    }
}

void TestPlots::channels_without_calibration()
{
    ChannelPlot plot;
    auto profile = channel_profile_of(50);
    profile->hessian_diagonal.resize(0);
    profile->activation_max_abs.resize(0);
    plot.setProfile(profile, k_layer);
    QVERIFY(plot.message().isEmpty());
    QVERIFY(plot.readout().contains(QStringLiteral("of weight energy")));
    plot.setQuantity(ChannelPlot::Quantity::HessianDiagonal);
    QCOMPARE(plot.quantity(), ChannelPlot::Quantity::WeightedEnergy);
    plot.setQuantity(ChannelPlot::Quantity::WeightMax);
    QCOMPARE(plot.quantity(), ChannelPlot::Quantity::WeightMax);
    const auto* items = qobject_cast<QStandardItemModel*>(plot.findChild<QComboBox*>()->model());
    QVERIFY(!items->item(1)->isEnabled());
    QVERIFY(items->item(3)->isEnabled());
    plot.setProfile(channel_profile_of(50), k_layer);
    QVERIFY(items->item(1)->isEnabled());
}

void TestPlots::channels_with_nan()
{
    ChannelPlot plot;
    auto profile = channel_profile_of(50);
    profile->weighted_energy[7] = std::nan("");
    profile->weighted_energy[30] = HUGE_VAL;
    plot.setProfile(profile, k_layer);
    show(plot);
    QVERIFY2(plot.readout().contains(QStringLiteral("2 channels hold NaN or infinity: 7, 30")),
             qPrintable(plot.readout()));
    QVERIFY(!plot.outliers().contains(7));
    QVERIFY(!plot.outliers().contains(30));
    plot.setSorted(true);
    QVector<int> last{plot.table().at(49).at(0).toInt(), plot.table().at(50).at(0).toInt()};
    QCOMPARE(last, QVector<int>({7, 30}));
    plot.setSelectedChannel(7);
    QVERIFY(plot.readout().contains(QStringLiteral("NaN")));
    profile = channel_profile_of(50);
    profile->weighted_energy.setConstant(std::nan(""));
    plot.setProfile(profile, k_layer);
    canvas(plot)->replot();
    QVERIFY(plot.outliers().isEmpty());
    QVERIFY(std::isnan(plot.threshold()));
}

void TestPlots::odd_channel_profiles_data()
{
    QTest::addColumn<int>("channels");
    QTest::addColumn<double>("value");
    for (const int channels : {0, 1, 2, 28'672})
        for (const double value : {0.0, 1.0, 1e-300, 1e300, -1.0})
            QTest::addRow("%d × %g", channels, value) << channels << value;
}

void TestPlots::odd_channel_profiles()
{
    QFETCH(int, channels);
    QFETCH(double, value);
    ChannelPlot plot;
    auto profile = channel_profile_of(channels);
    profile->weighted_energy.setConstant(value);
    plot.setProfile(profile, k_layer);
    show(plot);
    QCOMPARE(plot.message().isEmpty(), channels > 0);
    for (const bool log : {true, false}) {
        plot.setLogScale(log);
        for (const ChannelPlot::Rule rule : {ChannelPlot::Rule::TopK, ChannelPlot::Rule::TimesMedian}) {
            plot.setRule(rule);
            drag(plot, QPoint(400, 250), QPoint(400, 100));
            for (const int key : {Qt::Key_Right, Qt::Key_Up, Qt::Key_Plus, Qt::Key_Home, Qt::Key_Escape})
                QTest::keyClick(&plot, static_cast<Qt::Key>(key));
        }
    }
    plot.setProfile(nullptr, {});
    QVERIFY(!plot.message().isEmpty());
    QVERIFY(plot.table().isEmpty());
}

void TestPlots::rank_is_dragged()
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

void TestPlots::rank_drag_is_undone_by_escape()
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

void TestPlots::rank_keys()
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

void TestPlots::rank_is_clamped()
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

void TestPlots::figures_of_a_rank()
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

void TestPlots::spectrum_on_a_log_rank_axis()
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

void TestPlots::odd_spectra_data()
{
    QTest::addColumn<int>("size");
    QTest::addColumn<double>("value");
    for (const int size : {0, 1, 2, 8192})
        for (const double value : {0.0, 1.0, 1e-300, 1e300, std::nan(""), HUGE_VAL, -1.0})
            QTest::addRow("%d × %g", size, value) << size << value;
}

void TestPlots::odd_spectra()
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
