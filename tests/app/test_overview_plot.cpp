// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/overview_plot.h"
#include "tests/app/plot_hand.h"

#include <QApplication>
#include <QSignalSpy>
#include <QTest>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

/// `blocks` blocks with the four inputs of a Llama; in the residual stream's, channel `hot` is large in every
/// block.
std::shared_ptr<ChannelMap> made_up(int blocks, Index hidden, Index hot)
{
    auto map = std::make_shared<ChannelMap>();
    const std::pair<LinearRole, const char*> inputs[] = {{LinearRole::Query, "self_attn.q_proj"},
                                                         {LinearRole::Output, "self_attn.o_proj"},
                                                         {LinearRole::Gate, "mlp.gate_proj"},
                                                         {LinearRole::Down, "mlp.down_proj"}};
    for (int block = 0; block < blocks; ++block) {
        for (const auto& [role, name] : inputs) {
            const Index channels = role == LinearRole::Down ? 3 * hidden : hidden;
            ChannelMap::Row row;
            row.group = "model.layers." + std::to_string(block) + "." + name;
            row.block = block;
            row.role = role;
            row.rms = VectorD::NullaryExpr(
                channels, [block](Index j) { return 1.0 + 0.1 * std::sin(double(j + block)); });
            if (role == LinearRole::Query || role == LinearRole::Gate)
                row.rms[hot] = 50.0;
            row.rms *= 1.0 + block; // later blocks are louder
            row.max_abs = 4.0 * row.rms;
            row.median_rms = 1.0 + block;
            row.median_max_abs = 4.0 * row.median_rms;
            map->rows.push_back(std::move(row));
        }
    }
    return map;
}

} // namespace

class TestOverviewPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void one_hot_channel_in_two_thousand_is_on_screen()
    {
        constexpr Index k_hot = 1234;
        OverviewPlot plot;
        plot.setMap(made_up(12, 2048, k_hot));
        plot.setNormalised(true);
        show(plot); // fewer pixels than channels
        QCOMPARE(plot.persistent(), QVector<int>{int{k_hot}});
        QVERIFY2(plot.readout().contains(QStringLiteral("1234")), qPrintable(plot.readout()));
        const QPoint line = at(plot, static_cast<double>(k_hot), 6.0);
        const QColor hottest = Theme::magnitude(1.0);
        QVERIFY(pixels_near(plot, line.x(), 2, hottest) > canvas(plot)->axisRect()->height() / 2);
        QCOMPARE(pixels_near(plot, line.x() + 40, 10, hottest), 0);
    }

    void rows_are_the_inputs_asked_for()
    {
        OverviewPlot plot;
        plot.setMap(made_up(3, 64, 5));
        QCOMPARE(plot.rowCount(), 6); // what attention and the MLP of each block read
        QCOMPARE(plot.channelCount(), 64);
        QCOMPARE(plot.table().size(), 7);
        QCOMPARE(plot.table()[1][2], QStringLiteral("5"));
        plot.setInputs(OverviewPlot::Inputs::Down);
        QCOMPARE(plot.rowCount(), 3);
        QCOMPARE(plot.channelCount(), 192);
        QVERIFY(plot.persistent().isEmpty());
        plot.setMap(nullptr);
        QCOMPARE(plot.rowCount(), 0);
        QVERIFY(plot.table().isEmpty() && plot.readout().isEmpty());
    }

    void cells_are_clicked_and_walked()
    {
        OverviewPlot plot;
        plot.setMap(made_up(3, 64, 5));
        show(plot);
        QSignalSpy selected(&plot, &OverviewPlot::cellSelected);
        QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier, at(plot, 5.0, 3.5));
        QCOMPARE(selected.count(), 1);
        QCOMPARE(selected[0][0].toString(), QStringLiteral("model.layers.1.mlp.gate_proj"));
        QCOMPARE(selected[0][1].toInt(), 5);
        QTest::keyClick(&plot, Qt::Key_Right);
        QTest::keyClick(&plot, Qt::Key_Up);
        QCOMPARE(selected.count(), 3);
        QCOMPARE(selected[2][0].toString(), QStringLiteral("model.layers.2.self_attn.q_proj"));
        QCOMPARE(selected[2][1].toInt(), 6);
        for (int i = 0; i < 20; ++i)
            QTest::keyClick(&plot, Qt::Key_Left);
        QCOMPARE(selected.constLast()[1].toInt(), 0); // it ends at the edge
        plot.setSelection(QStringLiteral("nowhere"), 3);
        plot.setSelection(QStringLiteral("model.layers.0.mlp.gate_proj"), -1); // the whole row
        QCOMPARE(selected.constLast()[1].toInt(), 0);
    }

    void odd_maps_are_drawn()
    {
        for (const double value : {0.0, std::numeric_limits<double>::quiet_NaN(), 1e-300, 1e300}) {
            auto map = made_up(2, 8, 1);
            for (ChannelMap::Row& row : map->rows) {
                row.rms.setConstant(value);
                row.max_abs.setConstant(value);
                row.median_rms = row.median_max_abs = value;
            }
            OverviewPlot plot;
            plot.setMap(map);
            plot.setNormalised(true);
            show(plot, QSize(400, 300));
            QCOMPARE(plot.rowCount(), 4);
        }
    }
};

QTEST_MAIN(TestOverviewPlot)
#include "test_overview_plot.moc"
