// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/channel_plot.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QComboBox>
#include <QSignalSpy>
#include <QStandardItemModel>
#include <QApplication>
#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

class TestChannelPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

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
};

void TestChannelPlot::channels_tell_who_carries_the_energy()
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

void TestChannelPlot::one_hot_channel_in_twenty_thousand_is_on_screen_data()
{
    QTest::addColumn<int>("hot");
    QTest::addColumn<bool>("log");
    for (const int hot : {0, 1, 777, 12'345, 19'998, 19'999})
        for (const bool log : {false, true})
            QTest::addRow("%d %s", hot, log ? "log" : "linear") << hot << log;
}

void TestChannelPlot::one_hot_channel_in_twenty_thousand_is_on_screen()
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

void TestChannelPlot::threshold_is_dragged()
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

void TestChannelPlot::threshold_of_the_largest_k_is_dragged()
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

void TestChannelPlot::channel_keys()
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

void TestChannelPlot::channel_is_clicked()
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

void TestChannelPlot::sorted_channels_fall()
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

void TestChannelPlot::channels_without_calibration()
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

void TestChannelPlot::channels_with_nan()
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

void TestChannelPlot::odd_channel_profiles_data()
{
    QTest::addColumn<int>("channels");
    QTest::addColumn<double>("value");
    for (const int channels : {0, 1, 2, 28'672})
        for (const double value : {0.0, 1.0, 1e-300, 1e300, -1.0})
            QTest::addRow("%d × %g", channels, value) << channels << value;
}

void TestChannelPlot::odd_channel_profiles()
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

QTEST_MAIN(TestChannelPlot)
#include "test_channel_plot.moc"
