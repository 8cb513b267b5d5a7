// SPDX-License-Identifier: GPL-3.0-or-later
// The frame of the window: command palette and workspaces.
#include "app/workbench/actions.h"
#include "app/workbench/docks/checkpoint_dock.h"
#include "app/workbench/docks/inspector_dock.h"
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/docks/plan_dock.h"
#include "app/workbench/docks/results_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/text.h"
#include "app/workbench/widgets/command_palette.h"
#include "app/workbench/workspaces.h"
#include "tests/app/gui_support.h"

#include <QAbstractItemModelTester>
#include <QLineEdit>
#include <QTabWidget>
#include <QTest>
#include <QTreeView>

using namespace rankscope;
using namespace rankscope::test;

class TestShell : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void init();
    void cleanup();
    void scores_data();
    void scores();
    void the_list_is_a_sound_model();
    void a_command_by_its_name();
    void a_tensor_by_its_name();
    void what_cannot_be_done_is_not_done();
    void each_workspace_keeps_its_sizes();
    void workspaces_are_there_again_next_time();
    void an_unreadable_layout_is_ignored();

private:
    void openWindow();
    void openSample();
    QTreeView& list() const { return *window_->findChild<QTreeView*>(QStringLiteral("palette_list")); }
    CommandPalette& askFor(const QString& words);

    std::unique_ptr<PrivateSettings> settings_;
    std::unique_ptr<MainWindow> window_;
};

void TestShell::initTestCase()
{
    settings_ = std::make_unique<PrivateSettings>();
    Theme::instance().apply(*qApp, Theme::Choice::Light);
}

void TestShell::init() { openWindow(); }

void TestShell::openWindow()
{
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = settings_->path(QStringLiteral("work"));
    window_ = std::make_unique<MainWindow>(options);
    window_->resize(1280, 800);
    window_->show();
    QVERIFY(QTest::qWaitForWindowExposed(window_.get()));
}

void TestShell::cleanup() { window_.reset(); }

void TestShell::openSample()
{
    window_->openSample();
    QTRY_VERIFY_WITH_TIMEOUT(!window_->startPageVisible(), 20000);
}

CommandPalette& TestShell::askFor(const QString& words)
{
    window_->actions().palette->trigger();
    auto* palette = window_->findChild<CommandPalette*>();
    QTest::keyClicks(&palette->query(), words);
    return *palette;
}

void TestShell::scores_data()
{
    QTest::addColumn<QString>("query");
    QTest::addColumn<QString>("better");
    QTest::addColumn<QString>("worse"); // empty: must not match at all
    QTest::newRow("start of a word before its middle") << "plan"
                                                       << "Run plan"
                                                       << "Explan";
    QTest::newRow("whole before scattered") << "run"
                                            << "Run plan"
                                            << "Resume upward now";
    QTest::newRow("every word counts") << "run sel"
                                       << "Run selected rows"
                                       << "";
    QTest::newRow("part of a tensor's name") << "3 down"
                                             << "model.layers.3.mlp.down_proj.weight"
                                             << "model.layers.13.mlp.down_proj.weight";
}

void TestShell::scores()
{
    QFETCH(QString, query);
    QFETCH(QString, better);
    QFETCH(QString, worse);
    QVERIFY(paletteScore(query, better) > 0);
    if (!worse.isEmpty())
        QVERIFY(paletteScore(query, better) > paletteScore(query, worse));
    QCOMPARE(paletteScore(query + QStringLiteral(" zzqx"), better), -1);
    QCOMPARE(paletteScore({}, better), 0);
}

void TestShell::the_list_is_a_sound_model()
{
    PaletteModel model;
    QAbstractItemModelTester tester(&model, QAbstractItemModelTester::FailureReportingMode::QtTest);
    std::vector<PaletteEntry> entries;
    for (int i = 0; i < 1000; ++i)
        entries.push_back({QStringLiteral("layer %1").arg(i), {}, {}, true, [] {}});
    model.setEntries(std::move(entries));
    QCOMPARE(model.matches(), 1000);
    QVERIFY(model.rowCount() < 1000);
    model.setQuery(QStringLiteral("layer 999"));
    QCOMPARE(model.rowCount(), 1);
    model.setQuery(QStringLiteral("no such"));
    QCOMPARE(model.rowCount(), 0);
}

void TestShell::a_command_by_its_name()
{
    openSample();
    QVERIFY(window_->showView(QStringLiteral("channels")));
    QTest::keyClick(window_.get(), Qt::Key_K, Qt::ControlModifier);
    auto* palette = window_->findChild<CommandPalette*>();
    QVERIFY(palette && palette->isVisible());
    QTest::keyClicks(&palette->query(), QStringLiteral("spectrum"));
    QTest::keyClick(&palette->query(), Qt::Key_Return);
    QVERIFY(!palette->isVisible());
    auto* views = window_->findChild<QTabWidget*>(QStringLiteral("views"));
    QCOMPARE(views->tabText(views->currentIndex()), QStringLiteral("Spectrum"));
}

void TestShell::a_tensor_by_its_name()
{
    openSample();
    CommandPalette& palette = askFor(QStringLiteral("layers.2 up_proj"));
    const QString expected = QStringLiteral("model.layers.2.mlp.up_proj.weight");
    QCOMPARE(palette.model().entry(0).text, expected);
    QTest::keyClick(&palette.query(), Qt::Key_Down);
    QTest::keyClick(&palette.query(), Qt::Key_Up);
    QTest::keyClick(&palette.query(), Qt::Key_Enter);
    QCOMPARE(window_->session().selection().tensor, expected);
    window_->actions().palette->trigger();
    QVERIFY2(palette.query().text().isEmpty(), "the words of last time are gone");
    QTest::keyClick(&palette.query(), Qt::Key_Escape);
    QVERIFY(!palette.isVisible());
    QCOMPARE(window_->session().selection().tensor, expected);
}

void TestShell::what_cannot_be_done_is_not_done()
{
    CommandPalette& palette = askFor(QStringLiteral("run plan")); // without a checkpoint
    QVERIFY(!palette.model().entry(0).enabled);
    QTest::mouseClick(list().viewport(), Qt::LeftButton, {},
                      list().visualRect(palette.model().index(0, 0)).center());
    QVERIFY(palette.isVisible());
    QVERIFY(window_->runner().idle());
    palette.reject();
}

void TestShell::each_workspace_keeps_its_sizes()
{
    openSample();
    Workspaces& workspaces = window_->workspaces();
    QVERIFY(window_->inspectorDock().isVisible());
    QTest::keyClick(window_.get(), Qt::Key_2, Qt::ControlModifier);
    QCOMPARE(workspaces.current(), Workspaces::Kind::Plan);
    QVERIFY(window_->actions().workspace_plan->isChecked());
    QVERIFY(!window_->inspectorDock().isVisible());
    QVERIFY(window_->planDock().isVisible());
    QTRY_VERIFY(window_->planDock().height() > window_->height() * 45 / 100);
    window_->resizeDocks({&window_->planDock()}, {300}, Qt::Vertical);
    QTRY_VERIFY(window_->planDock().height() < window_->height() * 42 / 100);
    const int chosen = window_->planDock().height();
    window_->inspectorDock().show();

    QTest::keyClick(window_.get(), Qt::Key_3, Qt::ControlModifier);
    QVERIFY(!window_->checkpointDock().isVisible());
    QVERIFY(window_->jobsDock().isVisible() && !window_->jobsDock().visibleRegion().isEmpty());
    QTest::keyClick(window_.get(), Qt::Key_4, Qt::ControlModifier);
    QTRY_VERIFY(!window_->resultsDock().visibleRegion().isEmpty());
    QTest::keyClick(window_.get(), Qt::Key_2, Qt::ControlModifier);
    QTRY_COMPARE(window_->planDock().height(), chosen);
    QVERIFY(window_->inspectorDock().isVisible());

    window_->actions().reset_layout->trigger();
    QVERIFY(!window_->inspectorDock().isVisible());
    QTRY_VERIFY(window_->planDock().height() > window_->height() * 45 / 100);
}

void TestShell::workspaces_are_there_again_next_time()
{
    openSample();
    QTest::keyClick(window_.get(), Qt::Key_4, Qt::ControlModifier);
    window_->inspectorDock().hide();
    QVERIFY(window_->close());
    openWindow();
    QVERIFY2(!window_->checkpointDock().isVisible(), "the start page has no docks");
    openSample();
    QCOMPARE(window_->workspaces().current(), Workspaces::Kind::Results);
    QVERIFY(window_->actions().workspace_results->isChecked());
    QVERIFY(!window_->inspectorDock().isVisible());
    QVERIFY(window_->close());
}

void TestShell::an_unreadable_layout_is_ignored()
{
    const Workspaces::Kind before = window_->workspaces().current();
    for (const QByteArray& bytes : {QByteArray(), QByteArray("rubbish"), QByteArray(64, '\xff')})
        window_->workspaces().restore(bytes);
    QCOMPARE(window_->workspaces().current(), before);
}

QTEST_MAIN(TestShell)
#include "test_shell.moc"
