// SPDX-License-Identifier: GPL-3.0-or-later
// The whole job with real mouse and key events: start page → sample → select a layer → drag the rank → run →
// results → export; pausing and resuming a run; bad files. A watchdog fails the test when the window was ever
// blocked.
#include "app/workbench/actions.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/plots/error_plot.h"
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/plots/qcp.h"
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/widgets/data_table.h"
#include "tests/app/gui_support.h"
#include "tests/support/test_paths.h"

#include <QDir>
#include <QLabel>
#include <QLineEdit>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <QRegularExpression>
#include <QSpinBox>
#include <QTabBar>
#include <QTabWidget>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr int k_long = 60000; // a loaded machine; nothing waits this long when all is well

const QString k_down = QStringLiteral("model.layers.2.mlp.down_proj");

void click(QWidget* widget, const QPoint& at, Qt::KeyboardModifiers modifiers = Qt::NoModifier)
{
    QTest::mouseMove(widget, at);
    QTest::mouseClick(widget, Qt::LeftButton, modifiers, at);
}

void click(QWidget* widget) { click(widget, widget->rect().center()); }

/// A cell of a table or tree, scrolled into view.
void clickCell(QAbstractItemView& view, const QModelIndex& index,
               Qt::KeyboardModifiers modifiers = Qt::NoModifier)
{
    view.scrollTo(index);
    click(view.viewport(), view.visualRect(index).center(), modifiers);
}

/// The box of a checkable cell lies at its left edge.
void clickBox(QAbstractItemView& view, const QModelIndex& index)
{
    view.scrollTo(index);
    const QRect cell = view.visualRect(index);
    click(view.viewport(), QPoint(cell.left() + 12, cell.center().y()));
}

QModelIndex treeIndex(DataTree& tree, const QString& tensor)
{
    const auto found = tree.model()->match(tree.model()->index(0, 0), LayerTableModel::TensorRole, tensor, 1,
                                           Qt::MatchExactly | Qt::MatchRecursive);
    return found.isEmpty() ? QModelIndex() : found.first();
}

} // namespace

class TestWalk : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void init();
    void cleanup();
    void sample_to_exported_model();
    void keyboard_only();
    void pause_close_and_resume();
    void pause_and_resume_in_the_job_panel();
    void bad_files_are_explained();
    void unknown_family_is_open_for_its_weights();
    void the_map_leads_to_a_channel();
    void drop_opens_a_checkpoint();
    void cleanupTestCase();

private:
    void openWindow();
    void openSampleWithTheMouse();
    void waitUntilCalibrated();
    void onlyRows(const QVector<int>& rows);
    // The walk, step by step.
    void selectLayerInTheTree();
    void clickTheOutlier();
    void dragTheRank();
    void editThreeRowsAtOnce();
    void runTwoRows();
    void readTheResults();
    void exportAndCheck();

    PrivateSettings settings_;
    std::unique_ptr<StallWatchdog> watchdog_;
    std::unique_ptr<MainWindow> window_;
};

void TestWalk::initTestCase()
{
    // Harmless, and only on the offscreen platform.
    qputenv("QT_LOGGING_RULES", "qt.qpa.*=false");
    Theme::instance().apply(*qApp, Theme::Choice::Light);
    watchdog_ = std::make_unique<StallWatchdog>();
}

void TestWalk::cleanupTestCase()
{
    qInfo("longest time the window did not answer: %.0f ms, in: %s", watchdog_->worstMilliseconds(),
          qPrintable(watchdog_->worstStep()));
    QVERIFY2(watchdog_->worstMilliseconds() < StallWatchdog::limitMilliseconds(),
             qPrintable(watchdog_->worstStep()));
    watchdog_.reset();
}

void TestWalk::init() { openWindow(); }

void TestWalk::cleanup()
{
    watchdog_->enter(QStringLiteral("ending the window"));
    if (window_) {
        window_->runner().cancelAll();
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    }
    window_.reset();
}

void TestWalk::openWindow()
{
    watchdog_->enter(QStringLiteral("opening the window"));
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = settings_.path(QStringLiteral("work"));
    options.remember_layout = false;
    options.restore_plan = false;
    window_ = std::make_unique<MainWindow>(options);
    window_->resize(1280, 800);
    window_->show();
    window_->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(window_.get()));
}

void TestWalk::openSampleWithTheMouse()
{
    watchdog_->enter(QStringLiteral("opening the sample"));
    auto* button = window_->findChild<QPushButton*>(QStringLiteral("start_sample"));
    QVERIFY(button && button->isVisible());
    click(button);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
    QTRY_VERIFY(!window_->startPageVisible());
}

void TestWalk::waitUntilCalibrated()
{
    watchdog_->enter(QStringLiteral("calibrating"));
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().calibration() != nullptr, k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
}

void TestWalk::onlyRows(const QVector<int>& rows)
{
    DataTable& table = window_->planDock().table();
    PlanModel& model = window_->planDock().model();
    // All off with one click into a selection of all rows, then these on again.
    clickCell(table, model.index(0, PlanModel::Layer));
    QTest::keyClick(&table, Qt::Key_A, Qt::ControlModifier);
    clickBox(table, model.index(0, PlanModel::Include));
    QVERIFY(model.footer().contains(QStringLiteral("No layer is included")));
    for (const int row : rows) {
        clickCell(table, model.index(row, PlanModel::Layer));
        QCOMPARE(table.selectedRows(), QVector<int>{row});
        clickBox(table, model.index(row, PlanModel::Include));
    }
    QVERIFY2(model.footer().contains(QStringLiteral("%1 of 35 layers").arg(rows.size())),
             qPrintable(model.footer()));
}

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
    watchdog_->enter(QStringLiteral("selecting a layer"));
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
    watchdog_->enter(QStringLiteral("selecting a channel"));
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
    watchdog_->enter(QStringLiteral("dragging the rank"));
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
    QTest::mouseMove(canvas, pixel(8));
    QTest::mousePress(canvas, Qt::LeftButton, {}, pixel(8));
    for (int rank = 9; rank <= 20; ++rank) {
        // QTest::mouseMove carries no buttons, a drag needs them.
        QMouseEvent move(QEvent::MouseMove, pixel(rank), canvas->mapToGlobal(pixel(rank)), Qt::NoButton,
                         Qt::LeftButton, {});
        QApplication::sendEvent(canvas, &move);
        QCoreApplication::processEvents();
        QCOMPARE(shown_rank(), QString::number(spectrum.rank())); // the row follows while dragging
    }
    QTest::mouseRelease(canvas, Qt::LeftButton, {}, pixel(20));
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
    watchdog_->enter(QStringLiteral("editing three rows at once"));
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
    watchdog_->enter(QStringLiteral("choosing the rows to run"));
    onlyRows({0, window_->planDock().model().rowOf(k_down)});

    watchdog_->enter(QStringLiteral("running"));
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().running(), k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY2(window_->banner().text().isEmpty(), qPrintable(window_->banner().text()));
}

void TestWalk::readTheResults()
{
    watchdog_->enter(QStringLiteral("reading the results"));
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
    watchdog_->enter(QStringLiteral("exporting"));
    QTest::keyClick(window_.get(), Qt::Key_E, Qt::ControlModifier);
    QTRY_VERIFY(window_->exportDialog() && window_->exportDialog()->isVisible());
    ExportDialog* dialog = window_->exportDialog();
    QVERIFY(QTest::qWaitForWindowActive(dialog));
    QTRY_VERIFY_WITH_TIMEOUT(!dialog->folder().text().isEmpty(), k_long);
    const QString folder = settings_.path(QStringLiteral("exported"));
    click(&dialog->folder());
    QTest::keyClick(&dialog->folder(), Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(&dialog->folder(), folder);
    QTRY_VERIFY_WITH_TIMEOUT(dialog->exportButton().isEnabled(), k_long);
    QTest::qWait(400); // the outlook of the new folder
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

void TestWalk::keyboard_only()
{
    watchdog_->enter(QStringLiteral("keyboard: opening the sample"));
    QTRY_VERIFY(QApplication::focusWidget() != nullptr);
    QCOMPARE(QApplication::focusWidget()->objectName(), QStringLiteral("start_sample"));
    QTest::keyClick(QApplication::focusWidget(), Qt::Key_Return);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
    waitUntilCalibrated();
    watchdog_->enter(QStringLiteral("keyboard: filtering"));
    QTest::keyClick(window_.get(), Qt::Key_F, Qt::ControlModifier);
    auto* filter = qobject_cast<QLineEdit*>(QApplication::focusWidget());
    QVERIFY(filter);
    QTest::keyClicks(filter, QStringLiteral("role:down"));
    const QString selected = window_->session().selection().layer;
    QTest::keyClick(filter, Qt::Key_A, Qt::ControlModifier);
    QTest::keyClicks(filter, QStringLiteral("no such tensor"));
    auto* clear = window_->checkpointDock().findChild<QPushButton*>();
    QTRY_VERIFY(clear && clear->isVisible());
    QTest::keyClick(clear, Qt::Key_Space);
    QVERIFY(filter->text().isEmpty());
    QCOMPARE(window_->session().selection().layer, selected); // filtering is not choosing

    watchdog_->enter(QStringLiteral("keyboard: rank"));
    QTest::keyClick(window_.get(), Qt::Key_3, Qt::AltModifier);
    QTRY_VERIFY(window_->spectrumPlot().isVisible());
    QTRY_VERIFY_WITH_TIMEOUT(window_->spectrumPlot().largestRank() > 0, k_long);
    const QString layer = window_->session().selection().layer;
    const int before = window_->session().rank(layer).value_or(-1);
    QTest::keyClick(QApplication::focusWidget(), Qt::Key_Right);
    QCOMPARE(window_->session().rank(layer).value_or(-1), before + 1);
    QTest::keyClick(window_.get(), Qt::Key_BracketLeft);
    QCOMPARE(window_->session().rank(layer).value_or(-1), before);
    QTest::keyClick(window_.get(), Qt::Key_J);
    QVERIFY(window_->session().selection().layer != layer);
    QTest::keyClick(window_.get(), Qt::Key_Left, Qt::AltModifier);
    QCOMPARE(window_->session().selection().layer, layer);
    // F6 goes round all panels.
    QSet<QWidget*> seen;
    for (int i = 0; i < 6; ++i) {
        QTest::keyClick(window_.get(), Qt::Key_F6);
        seen.insert(QApplication::focusWidget());
    }
    QVERIFY2(seen.size() >= 5, qPrintable(QString::number(seen.size())));
}

void TestWalk::pause_close_and_resume()
{
    openSampleWithTheMouse();
    waitUntilCalibrated();
    watchdog_->enter(QStringLiteral("pausing a run"));
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    const auto finished = [&] {
        for (const JobId id : window_->runner().jobs()) {
            const JobInfo info = window_->runner().info(id);
            if (!info.progress.items.isEmpty())
                return std::count_if(info.progress.items.cbegin(), info.progress.items.cend(),
                                     [](const JobItem& item) { return item.state == JobItem::State::Done; });
        }
        return qsizetype{0};
    };
    QTRY_VERIFY_WITH_TIMEOUT(finished() >= 1, k_long);
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
    watchdog_->enter(QStringLiteral("resuming a run"));
    QTRY_VERIFY_WITH_TIMEOUT(window_->banner().text().contains(QStringLiteral("paused")), k_long);
    QVERIFY(window_->session().run());
    const std::size_t done_before = window_->session().run()->results().size();
    QVERIFY(done_before >= 1 && done_before < 35);
    QPushButton* resume = nullptr;
    for (auto* button : window_->banner().findChildren<QPushButton*>()) {
        if (button->text() == QLatin1String("Resume"))
            resume = button;
    }
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
    watchdog_->enter(QStringLiteral("the job panel"));
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

void TestWalk::bad_files_are_explained()
{
    watchdog_->enter(QStringLiteral("bad files"));
    const auto expect_banner = [&](const QString& path, const QString& word) {
        window_->banner().dismiss();
        window_->openPath(path);
        QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().opening(), k_long);
        QVERIFY2(window_->banner().text().contains(word), qPrintable(window_->banner().text()));
        QVERIFY(window_->startPageVisible());
    };
    expect_banner(settings_.path(QStringLiteral("not there")), QStringLiteral("not there"));

    // The sample with its weights cut in half.
    const QString torn = settings_.path(QStringLiteral("torn"));
    QVERIFY(QDir().mkpath(torn));
    const QString source = QString::fromStdString(sample_folder().string());
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"})
        QVERIFY(QFile::copy(source + QLatin1Char('/') + QLatin1String(name),
                            torn + QLatin1Char('/') + QLatin1String(name)));
    QFile weights(torn + QStringLiteral("/model.safetensors"));
    weights.setPermissions(QFile::ReadOwner | QFile::WriteOwner);
    QVERIFY(weights.resize(weights.size() / 2));
    expect_banner(torn, QStringLiteral("model.safetensors"));

    QFile text(settings_.path(QStringLiteral("noise.safetensors")));
    QVERIFY(text.open(QIODevice::WriteOnly));
    text.write(QByteArray(4096, '\xff'));
    text.close();
    expect_banner(text.fileName(), QStringLiteral("noise.safetensors"));

    // The window is as usable as before.
    openSampleWithTheMouse();
    QVERIFY(window_->banner().text().isEmpty());
}

void TestWalk::unknown_family_is_open_for_its_weights()
{
    watchdog_->enter(QStringLiteral("unknown family"));
    const QString zebra = settings_.path(QStringLiteral("zebra"));
    QVERIFY(QDir().mkpath(zebra));
    const QString source = QString::fromStdString(sample_folder().string());
    for (const char* name : {"tokenizer.json", "model.safetensors"})
        QVERIFY(QFile::copy(source + QLatin1Char('/') + QLatin1String(name),
                            zebra + QLatin1Char('/') + QLatin1String(name)));
    QFile config(source + QStringLiteral("/config.json"));
    QVERIFY(config.open(QIODevice::ReadOnly));
    QByteArray text = config.readAll();
    text.replace("\"model_type\": \"llama\"", "\"model_type\": \"zebra\"");
    QFile changed(zebra + QStringLiteral("/config.json"));
    QVERIFY(changed.open(QIODevice::WriteOnly) && changed.write(text) == text.size());
    changed.close();

    window_->openPath(zebra);
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().opening() && !window_->startPageVisible(), k_long);
    // What cannot be is not offered: no calibration, and a plan that runs without one.
    QVERIFY2(window_->banner().text().contains(QStringLiteral("zebra")),
             qPrintable(window_->banner().text()));
    QVERIFY(window_->banner().findChildren<QPushButton*>().isEmpty());
    QVERIFY(!window_->actions().calibrate_built_in->isEnabled());
    window_->actions().run->trigger();
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().run() && window_->session().run()->complete(), k_long);
    QVERIFY(!window_->actions().evaluate->isEnabled());
}

void TestWalk::the_map_leads_to_a_channel()
{
    openSampleWithTheMouse();
    waitUntilCalibrated();
    watchdog_->enter(QStringLiteral("overview"));
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
    watchdog_->enter(QStringLiteral("dropping a folder"));
    QMimeData data;
    data.setUrls({QUrl::fromLocalFile(QString::fromStdString(sample_folder().string()))});
    QDragEnterEvent enter(QPoint(300, 300), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(window_.get(), &enter);
    QVERIFY(enter.isAccepted());
    QDropEvent drop(QPointF(300, 300), Qt::CopyAction, &data, Qt::LeftButton, {});
    QApplication::sendEvent(window_.get(), &drop);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);

    QMimeData words;
    words.setText(QStringLiteral("not a file"));
    QDragEnterEvent refused(QPoint(300, 300), Qt::CopyAction, &words, Qt::LeftButton, {});
    refused.ignore();
    QApplication::sendEvent(window_.get(), &refused);
    QVERIFY(!refused.isAccepted());
}

QTEST_MAIN(TestWalk)
#include "test_walk.moc"
