// SPDX-License-Identifier: GPL-3.0-or-later
// Compare mode in the window: a second file and a run beside the open checkpoint, in the views and the table.
#include "app/workbench/actions.h"
#include "app/workbench/comparer.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/models/layer_table_model.h"
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/view_tabs.h"
#include "app/workbench/widgets/data_table.h"
#include "tests/app/gui_support.h"
#include "tests/app/plot_hand.h"
#include "tests/support/sample_model.h"

#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QMenu>
#include <QTemporaryDir>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr int k_long = 60000;
const QString k_down_proj = QStringLiteral("model.layers.2.mlp.down_proj");

int namedCurves(const PlotView& plot)
{
    const QCPLegend* legend = canvas(plot)->legend;
    int count = 0;
    for (int i = 0; i < legend->itemCount(); ++i)
        count += legend->item(i) != nullptr ? 1 : 0;
    return count;
}

} // namespace

class TestComparison : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void a_changed_file();
    void maps_of_a_changed_file();
    void the_overview_of_a_changed_file();
    void pictures_are_kept_within_bounds();
    void a_run();
    void a_stranger_is_refused_with_a_sentence();
    void cleanupTestCase() { window_.reset(); }

private:
    void compareWith(const QString& path);
    PlotView& settled(const QString& view);
    QString cell(int column) const;

    PrivateSettings settings_;
    QTemporaryDir folder_;
    std::unique_ptr<MainWindow> window_;
};

void TestComparison::initTestCase()
{
    Theme::instance().apply(*qApp, Theme::Choice::Light);
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = folder_.filePath(QStringLiteral("work"));
    options.remember_layout = false;
    window_ = std::make_unique<MainWindow>(options);
    window_->resize(1280, 800);
    window_->show();
    window_->openSample();
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().calibration() && window_->runner().idle(), k_long);
    window_->session().selectLayer(k_down_proj);
}

void TestComparison::compareWith(const QString& path)
{
    window_->comparer().start(path);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().comparison() && window_->runner().idle(), k_long);
    QTest::qWait(100);
}

QString TestComparison::cell(int column) const
{
    const QAbstractItemModel& model = *window_->checkpointDock().tree().model();
    const auto found =
        model.match(model.index(0, 0), LayerTableModel::TensorRole, k_down_proj + QStringLiteral(".weight"),
                    1, Qt::MatchExactly | Qt::MatchRecursive);
    return found.isEmpty() ? QString() : found.first().siblingAtColumn(column).data().toString();
}

/// A view that shows both sides.
PlotView& TestComparison::settled(const QString& view)
{
    window_->showView(view);
    PlotView& plot = *window_->viewTabs().plot(view);
    QTest::qWait(50);
    [&] { QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle() && !plot.busy(), k_long); }();
    QTest::qWait(100);
    return plot;
}

void TestComparison::a_changed_file()
{
    const QString other = folder_.filePath(QStringLiteral("other"));
    QVERIFY(copy_sample(other.toStdString(), [](std::string_view name, Matrix& values) {
        if (name == "model.layers.2.mlp.down_proj.weight")
            values *= 1.25F;
    }));
    window_->showView(QStringLiteral("channels"));
    compareWith(other);
    DataTree& tree = window_->checkpointDock().tree();
    QVERIFY(!tree.isColumnHidden(LayerTableModel::Difference));
    QCOMPARE(cell(LayerTableModel::Difference), QStringLiteral("0.25"));
    QVERIFY(!cell(LayerTableModel::OtherSize).isEmpty());
    QVERIFY(window_->session().difference(QStringLiteral("model.layers.1.mlp.down_proj")) == 0.0);
    for (const QString& view :
         {QStringLiteral("channels"), QStringLiteral("spectrum"), QStringLiteral("histogram")}) {
        window_->showView(view);
        PlotView& plot = *window_->viewTabs().plot(view);
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle() && !plot.busy(), k_long);
        QTest::qWait(150);
        bool named = false;
        for (int i = 0; i < canvas(plot)->legend->itemCount(); ++i) {
            auto* item = qobject_cast<QCPPlottableLegendItem*>(canvas(plot)->legend->item(i));
            if (!item || !item->plottable()->name().contains(QStringLiteral("other")))
                continue;
            named = true;
            QVERIFY(item->plottable()->pen().style() == Qt::CustomDashLine);
            QVERIFY(static_cast<QCPGraph*>(item->plottable())->dataCount() > 10);
        }
        QVERIFY2(named || view == QLatin1String("channels"), qPrintable(view));
        if (named)
            QVERIFY2(plot.table().first().filter(QStringLiteral("B")).size() >= 1, qPrintable(view));
        QVERIFY2(plot.command().contains(QStringLiteral("--compare ")), qPrintable(plot.command()));
    }
    window_->actions().compare_stop->trigger();
    QVERIFY(!window_->session().comparison());
    QVERIFY(tree.isColumnHidden(LayerTableModel::Difference));
    QTest::qWait(50);
    const PlotView& histogram = *window_->viewTabs().plot(QStringLiteral("histogram"));
    QCOMPARE(namedCurves(histogram), 1);
}

void TestComparison::maps_of_a_changed_file()
{
    const QString other = folder_.filePath(QStringLiteral("other"));
    auto& matrices = static_cast<MatricesPlot&>(settled(QStringLiteral("matrices")));
    const int alone = matrices.panelCount();
    QVERIFY(!matrices.isSigned());
    compareWith(other);
    settled(QStringLiteral("matrices"));
    QCOMPARE(canvas(matrices)->axisRectCount(), 3); // A, B, B − A
    QVERIFY(matrices.isSigned() && matrices.isShared());
    const auto rows = matrices.table();
    QCOMPARE(rows.first().size(), 5);
    QCOMPARE(rows.first().constLast(), QStringLiteral("B − A"));
    for (const int row : {1, 77, static_cast<int>(rows.size()) - 1}) {
        const double a = rows[row][2].toDouble();
        QVERIFY(a != 0.0);
        QVERIFY(std::abs(rows[row][3].toDouble() - 1.25 * a) <= 1e-6 * std::abs(a));
        QVERIFY(std::abs(rows[row][4].toDouble() - 0.25 * a) <= 1e-5 * std::abs(a));
    }
    // The hand chooses another part of both; W − Q of a matrix times 1.25 is 1.25 times as large.
    auto* part = matrices.findChild<QComboBox*>(QStringLiteral("matrices_part"));
    QVERIFY(part && part->isVisible());
    part->setFocus();
    for (int i = 0; i < 3; ++i)
        QTest::keyClick(part, Qt::Key_Down);
    settled(QStringLiteral("matrices"));
    QCOMPARE(matrices.panelCount(), 3);
    QVERIFY2(matrices.table().first()[2].startsWith(QStringLiteral("W − Q")),
             qPrintable(matrices.table().first()[2]));
    QVERIFY2(matrices.command().contains(QStringLiteral("--option part=residual")),
             qPrintable(matrices.command()));
    // Moving one panel moves all; Esc and the arrows work as ever.
    QTest::keyClick(&matrices, Qt::Key_Plus);
    for (int i = 1; i < 3; ++i)
        QCOMPARE(canvas(matrices)->axisRect(i)->axis(QCPAxis::atLeft)->range(),
                 canvas(matrices)->yAxis->range());
    QTest::keyClick(&matrices, Qt::Key_Right);
    QVERIFY2(matrices.readout().contains(QStringLiteral("B − A ")), qPrintable(matrices.readout()));

    // What flows into down_proj of the changed block is what it was; what flows into the next one is not.
    auto& activations = static_cast<ActivationsPlot&>(settled(QStringLiteral("activations")));
    QCOMPARE(activations.panelCount(), 3);
    QVERIFY2(activations.readout().contains(QStringLiteral("B − A: largest 0,")),
             qPrintable(activations.readout()));
    window_->session().selectLayer(QStringLiteral("model.layers.3.self_attn.q_proj"));
    settled(QStringLiteral("activations"));
    QCOMPARE(activations.panelCount(), 3);
    QVERIFY2(!activations.readout().contains(QStringLiteral("B − A: largest 0,")),
             qPrintable(activations.readout()));
    QCOMPARE(activations.table().first().size(), 7);
    window_->session().selectLayer(k_down_proj);
    window_->actions().compare_stop->trigger();
    settled(QStringLiteral("matrices"));
    QCOMPARE(matrices.panelCount(), alone);
    QVERIFY(!matrices.isSigned() && !part->isVisible());
    QCOMPARE(static_cast<ActivationsPlot&>(settled(QStringLiteral("activations"))).panelCount(), 1);
}

void TestComparison::the_overview_of_a_changed_file()
{
    auto& overview = static_cast<OverviewPlot&>(settled(QStringLiteral("overview")));
    QCOMPARE(overview.panelCount(), 1);
    const auto alone = overview.table();
    compareWith(folder_.filePath(QStringLiteral("other")));
    settled(QStringLiteral("overview"));
    QCOMPARE(overview.panelCount(), 3); // A, B, B / A
    QCOMPARE(canvas(overview)->axisRectCount(), 3);
    QVERIFY2(overview.readout().contains(QStringLiteral("log₂ B / A lies within ±0.3219")), // log2 of 1.25
             qPrintable(overview.readout()));
    // Only down_proj of block 2 differs; it is chosen among the inputs by the keyboard.
    QComboBox* inputs = nullptr;
    for (QComboBox* box : overview.findChildren<QComboBox*>())
        if (box->accessibleName().contains(QStringLiteral("inputs")))
            inputs = box;
    QVERIFY(inputs);
    inputs->setFocus();
    QTest::keyClick(inputs, Qt::Key_Down);
    QTest::keyClick(inputs, Qt::Key_Down);
    const auto rows = overview.table();
    QVERIFY(rows.size() > 3);
    for (int i = 1; i < rows.size(); ++i) {
        const double a = rows[i][3].toDouble();
        const double factor = rows[i][0] == k_down_proj ? 1.25 : 1.0;
        QVERIFY(a > 0.0 && std::abs(rows[i][4].toDouble() - factor * a) <= 1e-6 * a);
    }
    // A click on a cell of B selects layer and channel.
    const QRect second = canvas(overview)->axisRect(1)->rect();
    QTest::mouseClick(canvas(overview), Qt::LeftButton, Qt::NoModifier, second.center());
    QVERIFY(window_->session().selection().channel >= 0);
    QVERIFY(!window_->session().selection().layer.isEmpty());
    QTest::keyClick(&overview, Qt::Key_Plus);
    QTest::qWait(50);
    QCOMPARE(canvas(overview)->axisRect(2)->axis(QCPAxis::atBottom)->range(),
             canvas(overview)->xAxis->range());
    QTest::keyClick(inputs, Qt::Key_Home);
    window_->actions().compare_stop->trigger();
    settled(QStringLiteral("overview"));
    QCOMPARE(overview.panelCount(), 1);
    QCOMPARE(overview.table(), alone);
}

/// Back and forth between two layers draws what was computed; a bound that is said holds.
void TestComparison::pictures_are_kept_within_bounds()
{
    auto& matrices = static_cast<MatricesPlot&>(settled(QStringLiteral("matrices")));
    const ViewTabs& tabs = window_->viewTabs();
    window_->session().selectLayer(k_down_proj);
    settled(QStringLiteral("matrices"));
    QTest::keyClick(&matrices, Qt::Key_Home); // the table is of what is in sight
    const auto first = matrices.table();
    window_->session().selectNeighbour(1);
    settled(QStringLiteral("matrices"));
    QVERIFY(matrices.table() != first);
    const auto kept = tabs.keptBytes();
    QVERIFY(kept > 4 * 64 * 172 && kept <= tabs.mostKeptBytes());
    QVERIFY(tabs.mostKeptBytes() <= (qsizetype{1} << 30));
    window_->session().selectNeighbour(-1);
    QVERIFY(!matrices.busy()); // at once
    QTest::keyClick(&matrices, Qt::Key_Home);
    QVERIFY(matrices.table() == first);
    QCOMPARE(tabs.keptBytes(), kept);
}

void TestComparison::a_run()
{
    window_->workflow().run({k_down_proj});
    QTRY_VERIFY_WITH_TIMEOUT(
        window_->session().run() && !window_->workflow().running() && window_->runner().idle(), k_long);
    window_->comparer().startWithRun();
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().comparison() && window_->runner().idle(), k_long);
    QTest::qWait(100);
    QVERIFY(window_->session().comparison()->other.compressed);
    const auto difference = window_->session().difference(k_down_proj);
    QVERIFY(difference && *difference > 0.0 && *difference < 1.0);
    QVERIFY(window_->session().difference(QStringLiteral("model.layers.0.mlp.up_proj")) == 0.0);
    // The same calibration holds: what it weights is drawn for both.
    window_->showView(QStringLiteral("channels"));
    QTRY_VERIFY_WITH_TIMEOUT(namedCurves(*window_->viewTabs().plot(QStringLiteral("channels"))) == 3, k_long);
    QVERIFY(!cell(LayerTableModel::Done).isEmpty());
    const auto rows = window_->viewTabs().plot(QStringLiteral("channels"))->table();
    QVERIFY2(rows.first().constLast().startsWith(QStringLiteral("Δ")), qPrintable(rows.first().constLast()));
    QCOMPARE(rows.constLast().size(), rows.first().size());
    // Ctrl+B offers what there is.
    window_->actions().compare->trigger();
    auto* menu = window_->findChild<QMenu*>(QStringLiteral("compare_menu"));
    QVERIFY(menu && menu->actions().size() >= 4);
    menu->close();
    window_->actions().compare_stop->trigger();
}

void TestComparison::a_stranger_is_refused_with_a_sentence()
{
    window_->comparer().start(folder_.filePath(QStringLiteral("nothing here")));
    QTRY_VERIFY_WITH_TIMEOUT(window_->banner().text().contains(QStringLiteral("Not compared")), k_long);
    QVERIFY(!window_->session().comparison());
    // Half of the tensors are elsewhere: these are on top, and no one is lost.
    const auto model = window_->session().model();
    auto comparison = std::make_shared<Comparison>();
    comparison->other.model = model;
    comparison->other.name = QStringLiteral("made up");
    bool even = false;
    for (const TensorInfo& info : model->checkpoint().tensors()) {
        if ((even = !even))
            comparison->matching.pairs.emplace_back(info.name, info.name);
        else {
            comparison->matching.only_first.push_back(info.name);
            comparison->matching.only_second.push_back(info.name);
        }
    }
    LayerTableModel table(window_->session());
    QAbstractItemModelTester tester(&table, QAbstractItemModelTester::FailureReportingMode::QtTest);
    window_->session().setComparison(comparison);
    QCOMPARE(table.index(0, 0).data().toString(), QStringLiteral("Without a partner"));
    QCOMPARE(table.rowCount(table.index(0, 0)), static_cast<int>(2 * comparison->matching.only_first.size()));
    int rows = 0;
    for (int i = 0; i < table.rowCount(); ++i)
        rows += std::max(1, table.rowCount(table.index(i, 0)));
    QCOMPARE(rows, static_cast<int>(model->checkpoint().tensors().size()
                                    + comparison->matching.only_second.size()));
    window_->session().setComparison(nullptr);
}

QTEST_MAIN(TestComparison)
#include "test_comparison.moc"
