// SPDX-License-Identifier: GPL-3.0-or-later
// The whole job with real mouse and key events: start page → sample → select a layer → drag the rank → run →
// results → export; pausing and resuming a run.
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "tests/app/walk.h"

#include <QMessageBox>
#include <QPushButton>
#include <QRegularExpression>
#include <QSpinBox>
#include <QTreeView>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const QString k_down = QStringLiteral("model.layers.2.mlp.down_proj");

} // namespace

class TestWalk : public QObject, Walk {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { beginWalks(); }
    void init() { openWindow(); }
    void cleanup() { endWindow(); }
    void sample_to_exported_model();
    void pause_close_and_resume();
    void pause_and_resume_in_the_job_panel();
    void the_map_leads_to_a_channel();
    void drop_opens_a_checkpoint();
    void cleanupTestCase() { endWalks(); }

private:
    // The walk, step by step.
    void selectLayerInTheTree();
    void clickTheOutlier();
    void dragTheRank();
    void editThreeRowsAtOnce();
    void runTwoRows();
    void readTheResults();
    void exportAndCheck();
};

void TestWalk::sample_to_exported_model()
{
    QVERIFY(window_->startPageVisible());
    openSampleWithTheMouse();
    QVERIFY(window_->isActiveWindow());
    waitUntilCalibrated();
    QCOMPARE(window_->session().plan().rows.size(), std::size_t{35});
    for (const auto step : {&TestWalk::selectLayerInTheTree, &TestWalk::clickTheOutlier,
                            &TestWalk::dragTheRank, &TestWalk::editThreeRowsAtOnce, &TestWalk::runTwoRows,
                            &TestWalk::readTheResults, &TestWalk::exportAndCheck}) {
        (this->*step)();
        if (QTest::currentTestFailed())
            return;
    }
}

void TestWalk::selectLayerInTheTree()
{
    enter(QStringLiteral("selecting a layer"));
    DataTree& tree = window_->checkpointDock().tree();
    const QModelIndex down = treeIndex(tree, k_down + QStringLiteral(".weight"));
    QVERIFY(down.isValid());
    clickCell(tree, down);
    QCOMPARE(window_->session().selection().layer, k_down);
    auto* tabs = window_->findChild<QTabWidget*>(QStringLiteral("views"));
    QCOMPARE(tabs->currentIndex(), 0); // the whole model comes first
    click(tabs->tabBar(), tabs->tabBar()->tabRect(1).center());
    ChannelPlot& channels = window_->channelPlot();
    QVERIFY(channels.isVisible());
    QTRY_VERIFY_WITH_TIMEOUT(channels.summary().contains(QStringLiteral("of 172 channels")), k_long);
    QTRY_VERIFY(!channels.busy());
    QVERIFY2(!channels.outliers().isEmpty(),
             "the sample's down projection of block 2 has an outlier channel");
    QCOMPARE(window_->planDock().model().layerAt(window_->planDock().table().currentIndex().row()), k_down);
}

void TestWalk::clickTheOutlier()
{
    enter(QStringLiteral("selecting a channel"));
    ChannelPlot& channels = window_->channelPlot();
    auto* channel_canvas = channels.findChild<QCustomPlot*>();
    QVERIFY(channel_canvas);
    const int outlier = channels.outliers().first();
    QTest::qWait(200); // the queued replot lays the axes out
    const QPoint bar(static_cast<int>(channel_canvas->xAxis->coordToPixel(outlier)),
                     channel_canvas->axisRect()->bottom() - 6);
    click(channel_canvas, bar);
    QCOMPARE(window_->session().selection().channel, outlier);
    QVERIFY(window_->inspectorDock().value(QStringLiteral("Channel")).contains(QStringLiteral("outlier")));
}

void TestWalk::dragTheRank()
{
    enter(QStringLiteral("dragging the rank"));
    auto* tabs = window_->findChild<QTabWidget*>(QStringLiteral("views"));
    click(tabs->tabBar(), tabs->tabBar()->tabRect(2).center());
    SpectrumPlot& spectrum = window_->spectrumPlot();
    QTRY_VERIFY(spectrum.isVisible());
    QTRY_VERIFY_WITH_TIMEOUT(spectrum.largestRank() == 64 && !spectrum.busy(), k_long);
    QCOMPARE(spectrum.rank(), 8);
    PlanModel& plan = window_->planDock().model();
    const int row = plan.rowOf(k_down);
    const auto shown_rank = [&] { return plan.index(row, PlanModel::Rank).data().toString(); };
    const int steps_before = window_->session().undoStack().count();
    auto* canvas = spectrum.findChild<QCustomPlot*>();
    QVERIFY(canvas);
    const int middle = canvas->axisRect()->center().y();
    const auto pixel = [&](double rank) {
        return QPoint(static_cast<int>(canvas->xAxis->coordToPixel(rank + 0.5)), middle);
    };
    dragAcross(canvas, pixel(8), pixel(20), 12, [&] {
        QCOMPARE(shown_rank(), QString::number(spectrum.rank())); // the row follows while dragging
    });
    QVERIFY2(std::abs(spectrum.rank() - 20) <= 1, qPrintable(QString::number(spectrum.rank())));
    QCOMPARE(shown_rank(), QString::number(spectrum.rank()));
    QCOMPARE(window_->session().undoStack().count(), steps_before + 1);
    QTest::keyClick(window_.get(), Qt::Key_Z, Qt::ControlModifier);
    QCOMPARE(shown_rank(), QStringLiteral("8"));
    QCOMPARE(spectrum.rank(), 8);
    QTest::keyClick(window_.get(), Qt::Key_Z, Qt::ControlModifier | Qt::ShiftModifier);
    QCOMPARE(shown_rank(), QString::number(spectrum.rank()));
    QTRY_VERIFY_WITH_TIMEOUT(
        plan.index(row, PlanModel::PredictedError).data().toString() != QStringLiteral("~"), k_long);
}

void TestWalk::editThreeRowsAtOnce()
{
    enter(QStringLiteral("editing three rows at once"));
    PlanModel& plan = window_->planDock().model();
    DataTable& table = window_->planDock().table();
    clickCell(table, plan.index(0, PlanModel::Layer));
    clickCell(table, plan.index(2, PlanModel::Layer), Qt::ShiftModifier);
    QCOMPARE(table.selectedRows(), (QVector<int>{0, 1, 2}));
    const QModelIndex cell = plan.index(1, PlanModel::Rank);
    const QPoint cell_centre = table.visualRect(cell).center();
    click(table.viewport(), cell_centre);
    QTest::mouseDClick(table.viewport(), Qt::LeftButton, {}, cell_centre);
    auto* editor = table.findChild<QSpinBox*>();
    QVERIFY(editor);
    QTest::keyClick(editor, Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(editor, QStringLiteral("4"));
    QTest::keyClick(editor, Qt::Key_Return);
    for (const int edited : {0, 1, 2})
        QTRY_COMPARE(plan.index(edited, PlanModel::Rank).data().toString(), QStringLiteral("4"));
    QCOMPARE(window_->session().undoStack().undoText(), QStringLiteral("rank = 4 on 3 rows"));
}

void TestWalk::runTwoRows()
{
    onlyRows({0, window_->planDock().model().rowOf(k_down)});

    enter(QStringLiteral("running"));
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().running(), k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY2(window_->banner().text().isEmpty(), qPrintable(window_->banner().text()));
}

void TestWalk::readTheResults()
{
    enter(QStringLiteral("reading the results"));
    ResultsDock& results = window_->resultsDock();
    QTRY_VERIFY(results.table().isVisible());
    QCOMPARE(results.table().model()->rowCount(), 2);
    static const QRegularExpression two_figures(QStringLiteral("^\\d+\\.\\d+ ± \\d.* → \\d+\\.\\d+ ± \\d"));
    QVERIFY2(two_figures.match(results.perplexityText()).hasMatch(), qPrintable(results.perplexityText()));
    const Evaluation& evaluation = *window_->session().evaluation();
    QVERIFY(evaluation.before.perplexity > 3.0 && evaluation.before.perplexity < 6.0);
    QVERIFY(evaluation.after.perplexity > 0.9 * evaluation.before.perplexity);
    QVERIFY(evaluation.after.perplexity != evaluation.before.perplexity);
    clickCell(results.table(), results.table().model()->index(1, RunModel::Layer));
    QCOMPARE(window_->session().selection().layer, k_down);
    QTRY_VERIFY(!results.plot().traces().isEmpty());
    QVERIFY(k_down.endsWith(results.plot().traces().first().layer));
}

void TestWalk::exportAndCheck()
{
    const QString folder = settings_.path(QStringLiteral("exported"));
    WALK(openExport(folder));
    ExportDialog* dialog = window_->exportDialog();
    click(&dialog->exportButton());
    QTRY_VERIFY_WITH_TIMEOUT(dialog->checkPassed(), k_long);
    QVERIFY2(dialog->verdict().contains(QStringLiteral("Reload check passed")),
             qPrintable(dialog->verdict()));
    QVERIFY(QFile::exists(folder + QStringLiteral("/config.json")));
    const auto again = Model::open(toPath(folder));
    QVERIFY2(again.has_value(), again ? "" : again.error().sentence().c_str());
    QCOMPARE((*again)->linears().size(), std::size_t{35});
    // What is there is not overwritten unasked.
    QTRY_VERIFY_WITH_TIMEOUT(!dialog->exportButton().isEnabled(), k_long);
    dialog->close();
}

void TestWalk::pause_close_and_resume()
{
    openSampleWithTheMouse();
    waitUntilCalibrated();
    enter(QStringLiteral("pausing a run"));
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(finishedLayers() >= 1, k_long);
    window_->close();
    QVERIFY(window_->isVisible());
    auto* question = window_->findChild<QMessageBox*>(QStringLiteral("close_question"));
    QTRY_VERIFY(question && question->isVisible());
    QCOMPARE(question->buttons().size(), 3);
    QVERIFY(QTest::qWaitForWindowActive(question));
    click(question->defaultButton()); // Pause and close
    QTRY_VERIFY_WITH_TIMEOUT(!window_->isVisible(), k_long);
    window_.reset();

    openWindow();
    openSampleWithTheMouse();
    enter(QStringLiteral("resuming a run"));
    QTRY_VERIFY_WITH_TIMEOUT(window_->banner().text().contains(QStringLiteral("paused")), k_long);
    QVERIFY(window_->session().run());
    const std::size_t done_before = window_->session().run()->results().size();
    QVERIFY(done_before >= 1 && done_before < 35);
    QAbstractButton* resume = bannerButton(QStringLiteral("Resume"));
    QVERIFY(resume);
    click(resume);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY(window_->session().run()->complete());
    QCOMPARE(window_->session().run()->results().size(), std::size_t{35});
}

void TestWalk::pause_and_resume_in_the_job_panel()
{
    openSampleWithTheMouse();
    waitUntilCalibrated();
    enter(QStringLiteral("the job panel"));
    Plan slow = window_->session().plan(); // long enough to be paused on any machine
    QVERIFY(apply_setting(slow, "*:method=caldera,iterations=100,early_stop=false"));
    window_->session().editPlan(QStringLiteral("slow"), slow);
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    auto* pause = window_->findChild<QPushButton*>(QStringLiteral("job_pause"));
    auto* next = window_->findChild<QPushButton*>(QStringLiteral("job_next"));
    auto* tree = window_->findChild<QTreeView*>(QStringLiteral("jobs_tree"));
    QVERIFY(pause && next && tree);
    const auto last_layer = [&] {
        const QModelIndex job = tree->model()->index(tree->model()->rowCount() - 1, 0);
        return tree->model()->index(tree->model()->rowCount(job) - 1, 0, job);
    };
    QTRY_VERIFY_WITH_TIMEOUT(last_layer().isValid() && pause->isEnabled(), k_long);
    const QPersistentModelIndex asked = last_layer();
    tree->setCurrentIndex(asked);
    QVERIFY(next->isEnabled());
    QTest::keyClick(tree, Qt::Key_Up, Qt::AltModifier);
    QCOMPARE(asked.sibling(asked.row(), 3).data().toString(), QStringLiteral("next"));
    QCOMPARE(pause->text(), QStringLiteral("Pause"));
    click(pause);
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().running(), k_long);
    QVERIFY(window_->session().run());
    const std::size_t done_before = window_->session().run()->results().size();
    QVERIFY2(done_before >= 1 && done_before < 35, qPrintable(QString::number(done_before)));
    QTRY_COMPARE(pause->text(), QStringLiteral("Resume"));
    click(pause);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY(window_->session().run()->complete());
}

void TestWalk::the_map_leads_to_a_channel()
{
    openSampleWithTheMouse();
    waitUntilCalibrated();
    enter(QStringLiteral("overview"));
    auto* tabs = window_->findChild<QTabWidget*>(QStringLiteral("views"));
    click(tabs->tabBar(), tabs->tabBar()->tabRect(0).center());
    auto* overview = window_->findChild<OverviewPlot*>(QStringLiteral("overview_plot"));
    QTRY_VERIFY(overview->isVisible());
    QTRY_COMPARE_WITH_TIMEOUT(overview->rowCount(), 10,
                              k_long); // what attention and the MLP of 5 blocks read
    QTest::qWait(200);                 // the queued replot lays the axes out
    auto* canvas = overview->findChild<QCustomPlot*>();
    click(canvas, QPoint(static_cast<int>(canvas->xAxis->coordToPixel(20.0)),
                         static_cast<int>(canvas->yAxis->coordToPixel(5.5))));
    QCOMPARE(window_->session().selection().layer, QStringLiteral("model.layers.2.mlp.gate_proj"));
    QCOMPARE(window_->session().selection().channel, 20);
}

void TestWalk::drop_opens_a_checkpoint()
{
    drop(QString::fromStdString(sample_folder().string()));
    QVERIFY(window_->session().model() != nullptr);

    QMimeData words;
    words.setText(QStringLiteral("not a file"));
    QDragEnterEvent refused(QPoint(300, 300), Qt::CopyAction, &words, Qt::LeftButton, {});
    refused.ignore();
    QApplication::sendEvent(window_.get(), &refused);
    QVERIFY(!refused.isAccepted());
}

QTEST_MAIN(TestWalk)
#include "test_walk.moc"
