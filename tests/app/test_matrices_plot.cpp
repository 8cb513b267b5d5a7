// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrices_plot.h"
#include "tests/app/plot_hand.h"
#include "tests/app/plot_samples.h"

#include <QApplication>
#include <QSet>
#include <QSignalSpy>
#include <QTest>
#include <QWheelEvent>

#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

std::shared_ptr<LayerMatrices> only(Matrix weight)
{
    auto matrices = std::make_shared<LayerMatrices>();
    matrices->parts[LayerMatrices::Weight] = std::make_shared<MagnitudePyramid>(std::move(weight));
    return matrices;
}

QCPAxisRect* panel(const PlotView& view, int index) { return canvas(view)->axisRect(index); }

/// Pixels of this color within a panel and `tolerance` columns of x.
int pixels_in(const PlotView& view, const QRect& inner, int x, int tolerance, const QColor& color)
{
    const QImage picture = canvas(view)->grab().toImage();
    int found = 0;
    for (int column = x - tolerance; column <= x + tolerance; ++column)
        for (int y = inner.top() - 1; y < inner.bottom(); ++y) // QCustomPlot clips a line higher
            found += picture.valid(column, y) && picture.pixelColor(column, y).rgb() == color.rgb() ? 1 : 0;
    return found;
}

} // namespace

class TestMatricesPlot : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void init()
    {
        be_strict();
        Theme::instance().apply(*qApp, Theme::Choice::Light);
    }

    void one_hot_column_in_two_thousand_is_on_screen_data()
    {
        QTest::addColumn<int>("hot");
        for (const int hot : {0, 1, 1023, 1234, 2046, 2047})
            QTest::addRow("column %d", hot) << hot;
    }

    void one_hot_column_in_two_thousand_is_on_screen()
    {
        QFETCH(int, hot);
        Matrix weight = Matrix::Constant(700, 2048, 0.01F);
        weight.col(hot).setConstant(-5.0F);
        MatricesPlot plot;
        plot.setMatrices(only(weight), k_layer);
        show(plot); // fewer pixels than columns
        const QRect inner = panel(plot, 0)->rect();
        QVERIFY(inner.width() < 1024);
        const int x = at(plot, hot, 0.0).x();
        const QColor hottest = Theme::magnitude(1.0);
        QVERIFY(pixels_in(plot, inner, x, 2, hottest) >= inner.height() - 2);
        const int elsewhere = hot > 1000 ? x - 60 : x + 60;
        QCOMPARE(pixels_in(plot, inner, elsewhere, 20, hottest), 0);
        // The pointer names the entry whose color it is on.
        QSignalSpy selected(&plot, &MatricesPlot::channelSelected);
        int found = -1;
        for (int column = x - 2; column <= x + 2 && found != hot; ++column) {
            QTest::mouseClick(canvas(plot), Qt::LeftButton, Qt::NoModifier,
                              QPoint(column, inner.center().y()));
            if (!selected.isEmpty())
                found = selected.constLast()[0].toInt();
        }
        QCOMPARE(found, hot);
    }

    void a_single_outlier_is_on_screen()
    {
        for (const auto& [row, col] : {std::pair<Index, Index>(0, 0), {1999, 4095}, {777, 3210}, {1024, 1}}) {
            Matrix weight = Matrix::Constant(2000, 4096, 0.01F);
            weight(row, col) = 3.0F;
            MatricesPlot plot;
            plot.setMatrices(only(weight), k_layer);
            show(plot, QSize(500, 300));
            QVERIFY(pixels_in(plot, panel(plot, 0)->rect(), at(plot, static_cast<double>(col), 0.0).x(), 2,
                              Theme::magnitude(1.0))
                    >= 1);
        }
    }

    void panels_move_together()
    {
        MatricesPlot plot;
        plot.setMatrices(layer_matrices_of(96, 192, true), k_layer);
        show(plot, QSize(1000, 400));
        QCOMPARE(plot.panelCount(), 4);
        QCOMPARE(canvas(plot)->axisRectCount(), 4);
        for (int i = 1; i < 4; ++i) // as wide as the first
            QVERIFY2(std::abs(panel(plot, i)->width() - panel(plot, 0)->width()) <= 3,
                     qPrintable(
                         QStringLiteral("%1 %2").arg(panel(plot, i)->width()).arg(panel(plot, 0)->width())));
        const QPoint center = panel(plot, 2)->rect().center();
        for (int i = 0; i < 4; ++i) {
            QWheelEvent wheel(center, canvas(plot)->mapToGlobal(center), {}, QPoint(0, 120), Qt::NoButton,
                              Qt::NoModifier, Qt::NoScrollPhase, false);
            QApplication::sendEvent(canvas(plot), &wheel);
        }
        const auto same = [&] {
            for (int i = 1; i < 4; ++i)
                if (panel(plot, i)->axis(QCPAxis::atBottom)->range() != canvas(plot)->xAxis->range()
                    || panel(plot, i)->axis(QCPAxis::atLeft)->range() != canvas(plot)->yAxis->range())
                    return false;
            return true;
        };
        QVERIFY(canvas(plot)->xAxis->range().size() < 150.0);
        QVERIFY(canvas(plot)->yAxis->range().size() < 80.0);
        QVERIFY(same());
        // A drag in the last panel moves the first, but no farther than the matrix goes.
        const QRect last = panel(plot, 3)->rect();
        drag(plot, last.center(), last.center() + QPoint(4000, 0));
        QVERIFY(same());
        QVERIFY(canvas(plot)->xAxis->range().lower >= -0.5);
        QTest::keyClick(&plot, Qt::Key_Home);
        QCOMPARE(canvas(plot)->xAxis->range().size(), 192.0);
        QVERIFY(same());
    }

    void numbers_appear_in_large_cells()
    {
        // Number of colors in the panel: of equal cells one, of letters many.
        const auto colors_of = [](const Matrix& weight) {
            MatricesPlot plot;
            plot.setMatrices(only(weight), k_layer);
            show(plot, QSize(700, 400));
            const QImage picture = canvas(plot)->grab().toImage();
            const QRect inner = panel(plot, 0)->rect().adjusted(2, 2, -2, -2);
            QSet<QRgb> colors;
            for (int y = inner.top(); y < inner.bottom(); ++y)
                for (int x = inner.left(); x < inner.right(); ++x)
                    colors.insert(picture.pixel(x, y));
            return colors.size();
        };
        QVERIFY(colors_of(Matrix::Constant(6, 8, 5.0F)) > 5);
        QCOMPARE(colors_of(Matrix::Constant(60, 80, 5.0F)), qsizetype(1));
    }

    void cells_are_walked_and_read()
    {
        MatricesPlot plot;
        plot.setMatrices(layer_matrices_of(12, 64, true), k_layer);
        show(plot, QSize(1000, 400));
        QSignalSpy selected(&plot, &MatricesPlot::channelSelected);
        QTest::keyClick(&plot, Qt::Key_Right);
        QTest::keyClick(&plot, Qt::Key_Down);
        QCOMPARE(selected.count(), 2);
        QCOMPARE(selected.constLast()[0].toInt(), 1);
        QVERIFY2(plot.readout().contains(QStringLiteral("Output 1, input 1: W ")),
                 qPrintable(plot.readout()));
        plot.setSelectedChannel(5);
        QCOMPARE(selected.count(), 2); // not by hand
        QVERIFY(plot.readout().contains(QStringLiteral("Channel 5")));
        QTest::keyClick(&plot, Qt::Key_Escape);
        QCOMPARE(selected.constLast()[0].toInt(), -1);
        QCOMPARE(plot.table().size(), qsizetype(1 + 12 * 64));
        QCOMPARE(plot.table().first().size(), 6);
        QTest::keyClick(&plot, Qt::Key_N);
        QVERIFY(!plot.isShared());
        QTest::keyClick(&plot, Qt::Key_L);
        QVERIFY(plot.isSigned());
    }

    void one_scale_or_each_its_own()
    {
        auto matrices = only(Matrix::Constant(8, 8, 1.0F));
        matrices->parts[LayerMatrices::Residual] = std::make_shared<MagnitudePyramid>(Matrix::Constant(8, 8, 1e-3F));
        MatricesPlot plot;
        plot.setMatrices(matrices, k_layer);
        show(plot, QSize(1000, 400));
        const QRect residual = panel(plot, 1)->rect();
        QCOMPARE(pixels_in(plot, residual, residual.center().x(), 20, Theme::magnitude(1.0)), 0);
        plot.setShared(false);
        canvas(plot)->replot();
        QVERIFY(pixels_in(plot, residual, residual.center().x(), 20, Theme::magnitude(1.0)) > 100);
    }

    void a_second_matrix_of_another_shape_is_told_and_not_drawn()
    {
        MatricesPlot plot;
        plot.setMatrices(layer_matrices_of(12, 64, false), k_layer);
        const int alone = plot.panelCount();
        show(plot, QSize(1000, 400));
        plot.setOther(nullptr, QStringLiteral("other")); // under way
        QCOMPARE(plot.panelCount(), 1);
        auto other = std::make_shared<OtherMatrix>();
        other->values = std::make_shared<MagnitudePyramid>(Matrix::Ones(7, 64));
        plot.setOther(other, QStringLiteral("other"));
        QCOMPARE(plot.panelCount(), 1);
        QVERIFY2(plot.readout().contains(QStringLiteral("B has 7 outputs × 64 inputs")),
                 qPrintable(plot.readout()));
        plot.setOther(std::make_shared<OtherMatrix>(), QStringLiteral("other"));
        QVERIFY2(plot.readout().contains(QStringLiteral("nothing to compare")), qPrintable(plot.readout()));
        plot.setNote(QStringLiteral("Said first"));
        QVERIFY(plot.readout().startsWith(QStringLiteral("Said first")));
        plot.setNote({});
        plot.setOther(nullptr, {});
        QCOMPARE(plot.panelCount(), alone);
    }

    void odd_matrices_are_drawn()
    {
        Matrix broken = Matrix::Constant(40, 30, 0.1F);
        broken(3, 4) = std::numeric_limits<float>::quiet_NaN();
        broken(5, 6) = std::numeric_limits<float>::infinity();
        for (const Matrix& weight :
             {Matrix(Matrix::Zero(1, 1)), Matrix(Matrix::Zero(5, 900)), broken,
              Matrix(Matrix::Constant(3, 3, std::numeric_limits<float>::quiet_NaN()))}) {
            MatricesPlot plot;
            plot.setMatrices(only(weight), k_layer);
            show(plot, QSize(400, 300));
            plot.setSigned(true);
            plot.setClipped(true);
            canvas(plot)->replot();
            QCOMPARE(plot.panelCount(), 1);
            QVERIFY(!plot.table().isEmpty());
            if (weight.rows() == 40)
                QVERIFY2(plot.readout().contains(QStringLiteral("2 values of W are NaN")),
                         qPrintable(plot.readout()));
            plot.setMatrices(nullptr, {});
            QCOMPARE(plot.panelCount(), 0);
            plot.setMatrices(only(weight), k_layer);
        }
    }
};

QTEST_MAIN(TestMatricesPlot)
#include "test_matrices_plot.moc"
