// SPDX-License-Identifier: GPL-3.0-or-later
// Without a mouse: open, find the outlier, choose a layer, set its rank, run, read the results, export. And what a
// screen reader has to say at each of these steps.
#include "app/workbench/docks/export_dialog.h"
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/views/view.h"
#include "app/workbench/widgets/command_palette.h"
#include "tests/app/accessible.h"
#include "tests/app/walk.h"

#include <QComboBox>
#include <QLineEdit>
#include <QPushButton>

using namespace rankscope;
using namespace rankscope::test;

namespace {

void allNamed(const QWidget& window)
{
    const QStringList nameless = namelessControls(window);
    QVERIFY2(nameless.isEmpty(), qPrintable(nameless.join(QLatin1Char('\n'))));
}

} // namespace

class TestWalkKeyboard : public QObject, Walk {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { beginWalks(); }
    void init() { openWindow(); }
    void cleanup() { endWindow(); }
    void open_to_export();
    void the_filter_and_the_panels();
    void every_control_has_a_name();
    void cleanupTestCase() { endWalks(); }

private:
    void press(int key, Qt::KeyboardModifiers modifiers = Qt::NoModifier);
    void write(const QString& text);
    void tabTo(QWidget& wanted);
    void openTheSample();
    void findTheOutlier();
    void chooseALayer();
    void setTheRank();
    void runThePlan();
    void readTheResults();
    void exportTheModel();
    QString heard() { return spoken(*window_).join(QLatin1Char('\n')); }
};

/// To what has the focus, as a keyboard does.
void TestWalkKeyboard::press(int key, Qt::KeyboardModifiers modifiers)
{
    QWidget* focus = QApplication::focusWidget();
    QTest::keyClick(focus ? focus : window_.get(), static_cast<Qt::Key>(key), modifiers);
}

void TestWalkKeyboard::write(const QString& text) { QTest::keyClicks(QApplication::focusWidget(), text); }

void TestWalkKeyboard::tabTo(QWidget& wanted)
{
    for (int i = 0; i < 60 && QApplication::focusWidget() != &wanted; ++i)
        press(Qt::Key_Tab);
    QCOMPARE(QApplication::focusWidget(), &wanted);
}

void TestWalkKeyboard::openTheSample()
{
    enter(QStringLiteral("keyboard: opening the sample"));
    QTRY_VERIFY(QApplication::focusWidget() != nullptr);
    QCOMPARE(QApplication::focusWidget()->objectName(), QStringLiteral("start_sample"));
    QVERIFY2(heard().contains(QStringLiteral("Open the sample")), qPrintable(heard()));
    press(Qt::Key_Return);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
    waitUntilCalibrated();
}

void TestWalkKeyboard::findTheOutlier()
{
    enter(QStringLiteral("keyboard: the map"));
    press(Qt::Key_1, Qt::AltModifier);
    auto* overview = window_->findChild<OverviewPlot*>(QStringLiteral("overview_plot"));
    QTRY_VERIFY_WITH_TIMEOUT(overview->isVisible() && overview->rowCount() > 0, k_long);
    QVERIFY(overview->hasFocus());
    const int before = window_->session().selection().channel;
    for (int i = 0; i < 5; ++i)
        press(Qt::Key_Right);
    press(Qt::Key_Up);
    press(Qt::Key_Return);
    QVERIFY(window_->session().selection().channel >= 0);
    QVERIFY(window_->session().selection().channel != before);
    QVERIFY2(heard().contains(overview->summary()), "the map says what it shows");
}

void TestWalkKeyboard::chooseALayer()
{
    enter(QStringLiteral("keyboard: choosing a layer"));
    const QString wanted = QStringLiteral("model.layers.2.mlp.down_proj");
    press(Qt::Key_K, Qt::ControlModifier);
    write(QStringLiteral("layers.2 down_proj"));
    press(Qt::Key_Return);
    QCOMPARE(window_->session().selection().layer, wanted);
    QVERIFY(QTest::qWaitForWindowActive(window_.get()));
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    QVERIFY2(heard().contains(wanted), "the layer is heard");
}

void TestWalkKeyboard::setTheRank()
{
    enter(QStringLiteral("keyboard: rank"));
    press(Qt::Key_3, Qt::AltModifier);
    SpectrumPlot& spectrum = window_->spectrumPlot();
    QTRY_VERIFY_WITH_TIMEOUT(spectrum.isVisible() && spectrum.largestRank() > 0 && !spectrum.busy(), k_long);
    const QString layer = window_->session().selection().layer;
    const int before = window_->session().rank(layer).value_or(-1);
    press(Qt::Key_Right);
    QCOMPARE(window_->session().rank(layer).value_or(-1), before + 1);
    press(Qt::Key_BracketLeft);
    QCOMPARE(window_->session().rank(layer).value_or(-1), before);
    press(Qt::Key_Right, Qt::ShiftModifier);
    QCOMPARE(window_->session().rank(layer).value_or(-1), before + 16);
    while (spectrum.tailEnergy(spectrum.rank()) > 0.1 && spectrum.rank() < spectrum.largestRank())
        press(Qt::Key_BracketRight);
    const int goal = spectrum.rank();
    QCOMPARE(window_->session().rank(layer).value_or(-1), goal);
    const QString said = heard();
    QVERIFY2(said.contains(QStringLiteral("of the energy of")), "the spectrum says what it shows");
    QVERIFY2(said.contains(QStringLiteral("rank %1").arg(goal)), "and the rank that was set");
    // Going elsewhere and back keeps it.
    press(Qt::Key_J);
    QVERIFY(window_->session().selection().layer != layer);
    press(Qt::Key_Left, Qt::AltModifier);
    QCOMPARE(window_->session().selection().layer, layer);
    QCOMPARE(spectrum.rank(), goal);
}

void TestWalkKeyboard::runThePlan()
{
    enter(QStringLiteral("keyboard: the plan"));
    press(Qt::Key_2, Qt::ControlModifier);
    PlanModel& plan = window_->planDock().model();
    DataTable& table = window_->planDock().table();
    auto* presets = window_->findChild<QComboBox*>(QStringLiteral("plan_presets"));
    presets->setFocus(Qt::TabFocusReason);
    tabTo(table);
    // One key off, one key on, for all rows.
    press(Qt::Key_Home, Qt::ControlModifier);
    press(Qt::Key_A, Qt::ControlModifier);
    press(Qt::Key_Space);
    QVERIFY2(plan.footer().contains(QStringLiteral("No layer is included")), qPrintable(plan.footer()));
    press(Qt::Key_Down);
    press(Qt::Key_Space);
    QVERIFY2(plan.footer().contains(QStringLiteral("1 of 35 layers")), qPrintable(plan.footer()));
    enter(QStringLiteral("keyboard: running"));
    press(Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().running(), k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
}

void TestWalkKeyboard::readTheResults()
{
    enter(QStringLiteral("keyboard: results"));
    press(Qt::Key_4, Qt::ControlModifier);
    press(Qt::Key_7, Qt::AltModifier);
    DataTable& table = window_->resultsDock().table();
    QCOMPARE(QApplication::focusWidget(), &table);
    press(Qt::Key_Down);
    QVERIFY(table.currentIndex().isValid());
    const QString said = heard();
    for (const char* name : {"Perplexity before", "Perplexity after", "Activation error"})
        QVERIFY2(said.contains(QLatin1String(name)), name);
    for (int column = 0; column < table.model()->columnCount(); ++column) {
        const QString value = table.model()->index(0, column).data().toString();
        QVERIFY2(said.contains(value), qPrintable(value));
    }
}

void TestWalkKeyboard::exportTheModel()
{
    enter(QStringLiteral("keyboard: exporting"));
    press(Qt::Key_E, Qt::ControlModifier);
    QTRY_VERIFY(window_->exportDialog() && window_->exportDialog()->isVisible());
    ExportDialog& dialog = *window_->exportDialog();
    QVERIFY(QTest::qWaitForWindowActive(&dialog));
    QTRY_VERIFY_WITH_TIMEOUT(!dialog.folder().text().isEmpty() && QApplication::focusWidget(), k_long);
    WALK(tabTo(dialog.folder()));
    press(Qt::Key_A, Qt::ControlModifier);
    const QString folder = settings_.path(QStringLiteral("typed"));
    write(folder);
    QTRY_VERIFY_WITH_TIMEOUT(dialog.exportButton().isEnabled() && window_->runner().idle(), k_long);
    QTest::qWait(400); // the outlook of the new folder
    QTRY_VERIFY_WITH_TIMEOUT(dialog.exportButton().isEnabled() && window_->runner().idle(), k_long);
    WALK(allNamed(dialog));
    WALK(tabTo(dialog.exportButton()));
    press(Qt::Key_Space);
    QTRY_VERIFY_WITH_TIMEOUT(dialog.checkPassed(), k_long);
    QVERIFY2(spoken(dialog).join(QLatin1Char('\n')).contains(dialog.verdict()), "the verdict is heard");
    QVERIFY(QFile::exists(folder + QStringLiteral("/config.json")));
    QTest::keyClick(&dialog, Qt::Key_Escape);
    QTRY_VERIFY(!window_->exportDialog() || !window_->exportDialog()->isVisible());
}

void TestWalkKeyboard::open_to_export()
{
    WALK(openTheSample());
    WALK(findTheOutlier());
    WALK(chooseALayer());
    WALK(setTheRank());
    WALK(runThePlan());
    WALK(readTheResults());
    WALK(exportTheModel());
}

void TestWalkKeyboard::the_filter_and_the_panels()
{
    WALK(openTheSample());
    enter(QStringLiteral("keyboard: filtering"));
    press(Qt::Key_F, Qt::ControlModifier);
    auto* filter = qobject_cast<QLineEdit*>(QApplication::focusWidget());
    QVERIFY(filter);
    write(QStringLiteral("role:down"));
    const QString selected = window_->session().selection().layer;
    press(Qt::Key_A, Qt::ControlModifier);
    write(QStringLiteral("no such tensor"));
    auto* clear = window_->checkpointDock().findChild<QPushButton*>();
    QTRY_VERIFY(clear && clear->isVisible());
    WALK(tabTo(*clear));
    press(Qt::Key_Space);
    QVERIFY(filter->text().isEmpty());
    QCOMPARE(window_->session().selection().layer, selected); // filtering is not choosing
    QVERIFY2(window_->checkpointDock().isAncestorOf(QApplication::focusWidget()), "the focus stays in the panel");
    // F6 goes round all panels, and back.
    QVector<QWidget*> forth;
    for (int i = 0; i < 6; ++i) {
        press(Qt::Key_F6);
        forth << QApplication::focusWidget();
    }
    QVERIFY2(QSet<QWidget*>(forth.cbegin(), forth.cend()).size() == 6, "six panels");
    for (int i = 4; i >= 0; --i) {
        press(Qt::Key_F6, Qt::ShiftModifier);
        QCOMPARE(QApplication::focusWidget(), forth[i]);
    }
}

void TestWalkKeyboard::every_control_has_a_name()
{
    enter(QStringLiteral("names of controls"));
    WALK(allNamed(*window_));
    WALK(openTheSample());
    for (const QString& view : viewIds()) {
        QVERIFY(window_->showView(view));
        QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
        WALK(allNamed(*window_));
        const PlotView& plot = *window_->viewTabs().plot(view);
        QVERIFY2(plot.accessibleDescription().size() > 20, qPrintable(view)); // what it shows, in words
    }
    for (const int workspace : {Qt::Key_1, Qt::Key_2, Qt::Key_3, Qt::Key_4}) {
        press(workspace, Qt::ControlModifier);
        WALK(allNamed(*window_));
    }
    press(Qt::Key_K, Qt::ControlModifier);
    auto* palette = window_->findChild<CommandPalette*>();
    QVERIFY(palette && palette->isVisible());
    WALK(allNamed(*palette));
    press(Qt::Key_Escape);
    window_->openPath(settings_.path(QStringLiteral("not there")));
    QTRY_VERIFY_WITH_TIMEOUT(!window_->banner().text().isEmpty(), k_long);
    WALK(allNamed(*window_));
    QVERIFY2(heard().contains(QStringLiteral("not there")), "an error is heard");
}

QTEST_MAIN(TestWalkKeyboard)
#include "test_walk_keyboard.moc"
