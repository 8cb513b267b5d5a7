// SPDX-License-Identifier: GPL-3.0-or-later
// Projects and plans from one session to the next.
#include "app/workbench/actions.h"
#include "app/workbench/main_window.h"
#include "app/workbench/message_banner.h"
#include "app/workbench/project_keeper.h"
#include "app/workbench/text.h"
#include "core/methods/method.h"
#include "core/run/project.h"
#include "tests/app/gui_support.h"

#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QSignalSpy>
#include <QTest>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr int k_long = 60000;

/// What the file holds then; empty if it cannot be written, or the text is not in it.
QByteArray replaceText(const QString& name, const char* text, const char* other)
{
    QFile file(name);
    if (!file.open(QIODevice::ReadWrite))
        return {};
    QByteArray bytes = file.readAll();
    if (!bytes.contains(text))
        return {};
    bytes.replace(text, other);
    return file.resize(0) && file.seek(0) && file.write(bytes) == bytes.size() ? bytes : QByteArray();
}

} // namespace

class TestProjects : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void init();
    void cleanup();
    void a_project_brings_its_plan_back();
    void a_run_is_added_to_the_project();
    void edits_that_were_not_saved_are_recovered();
    void a_plan_without_a_project_is_as_it_was_left();
    void only_a_person_s_edits_are_kept();
    void a_checkpoint_that_moved_is_said();
    void a_project_of_a_newer_program_is_not_overwritten();

private:
    void openWindow();
    void open(const QString& path);
    void save(const QString& file);
    void edit(int row, std::int64_t bits);
    std::int64_t bits(int row) const;

    std::unique_ptr<PrivateSettings> settings_;
    std::unique_ptr<MainWindow> window_;
};

void TestProjects::initTestCase() { Theme::instance().apply(*qApp, Theme::Choice::Light); }

void TestProjects::init()
{
    settings_ = std::make_unique<PrivateSettings>();
    openWindow();
}

void TestProjects::cleanup()
{
    window_->runner().cancelAll();
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
    window_.reset();
}

void TestProjects::openWindow()
{
    window_.reset();
    WindowOptions options;
    options.backend = QStringLiteral("cpu");
    options.work_root = settings_->path(QStringLiteral("work"));
    options.remember_layout = false;
    window_ = std::make_unique<MainWindow>(options);
    window_->show();
}

/// An empty path: the sample. Until it is open and calibrated.
void TestProjects::open(const QString& path)
{
    if (path.isEmpty())
        window_->openSample();
    else
        window_->openPath(path);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().model() != nullptr, k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().calibration() != nullptr, k_long);
    QTRY_VERIFY_WITH_TIMEOUT(window_->runner().idle(), k_long);
}

void TestProjects::save(const QString& file)
{
    QSignalSpy saved(&window_->projectKeeper(), &ProjectKeeper::saved);
    QSignalSpy failed(&window_->projectKeeper(), &ProjectKeeper::failed);
    window_->projectKeeper().save(file, false);
    QTRY_VERIFY_WITH_TIMEOUT(saved.size() + failed.size() == 1, k_long);
    QVERIFY2(failed.isEmpty(), qPrintable(window_->banner().text()));
}

void TestProjects::edit(int row, std::int64_t bits)
{
    Plan plan = window_->session().plan();
    LayerPlan& edited = plan.rows[static_cast<std::size_t>(row)];
    auto parameters = edited.parameters.with(find_method(edited.method)->info(), "bits", bits);
    QVERIFY(parameters.has_value());
    edited.parameters = std::move(*parameters);
    window_->session().editPlan(QStringLiteral("bits"), std::move(plan));
}

std::int64_t TestProjects::bits(int row) const
{
    return window_->session().plan().rows[static_cast<std::size_t>(row)].parameters.integer("bits");
}

void TestProjects::a_project_brings_its_plan_back()
{
    open({});
    const QString file = settings_->path(QStringLiteral("talk.rankscope.json"));
    edit(3, 4);
    save(file);
    QCOMPARE(window_->windowTitle(), QStringLiteral("talk[*] – Rankscope"));
    QVERIFY(!window_->isWindowModified());
    edit(4, 4);
    QVERIFY(window_->isWindowModified());
    window_->actions().undo->trigger();
    QVERIFY(!window_->isWindowModified());
    const Plan plan = window_->session().plan();

    const auto project = Project::read(toPath(file)); // as the command line reads it
    QVERIFY(project.has_value() && project->calibration.has_value());
    QVERIFY(project->model().has_value() && project->check_text());

    openWindow();
    open(file);
    QCOMPARE(window_->session().plan().rows, plan.rows);
    QCOMPARE(bits(3), 4);
    QVERIFY(!window_->isWindowModified());
    QCOMPARE(window_->session().workFolder(), settings_->path(QStringLiteral("talk.rankscope")));
    QCOMPARE(settings::recentFiles().value(0), file);
    save(file); // its own file needs no second question
}

void TestProjects::a_run_is_added_to_the_project()
{
    open({});
    const QString file = settings_->path(QStringLiteral("one.rankscope.json"));
    Plan plan = window_->session().plan();
    for (std::size_t row = 1; row < plan.rows.size(); ++row)
        plan.rows[row].include = false;
    window_->session().editPlan(QStringLiteral("one row"), std::move(plan));
    save(file);
    openWindow();
    open(file);
    window_->actions().run->trigger();
    edit(2, 3); // an edit under way is not what ran, nor is it saved behind a person's back
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().run() && window_->runner().idle(), k_long);
    const auto project = Project::read(toPath(file));
    QVERIFY(project.has_value());
    QCOMPARE(project->runs.size(), std::size_t{1});
    QCOMPARE(project->runs.front().backend, std::string("cpu"));
    QCOMPARE(project->runs.front().plan_hash, project->plan_hash());
    QVERIFY(QFileInfo::exists(settings_->path(QStringLiteral("one.rankscope/runs/"))
                              + toQString(project->runs.front().name)));
    QVERIFY(window_->isWindowModified());
}

void TestProjects::edits_that_were_not_saved_are_recovered()
{
    open({});
    const QString file = settings_->path(QStringLiteral("lost.rankscope.json"));
    save(file);
    openWindow();
    open(file);
    edit(5, 4);
    window_->projectKeeper().flush(); // what the half-minute does, then the power goes
    openWindow();
    open(file);
    QCOMPARE(bits(5), 4);
    QVERIFY(window_->isWindowModified());
    QVERIFY(window_->banner().trigger(QStringLiteral("Take the saved plan")));
    QCOMPARE(bits(5), 2);
    QVERIFY(!window_->isWindowModified());
}

void TestProjects::a_plan_without_a_project_is_as_it_was_left()
{
    open({});
    edit(0, 3);
    QVERIFY(window_->close());
    openWindow();
    open({});
    QCOMPARE(bits(0), 3);
    window_->actions().undo->trigger();
    QCOMPARE(bits(0), 2);
}

void TestProjects::only_a_person_s_edits_are_kept()
{
    open({});
    QVERIFY(window_->close());
    QVERIFY(!QFileInfo::exists(window_->session().workFolder() + QStringLiteral("/plan.autosave.json")));
}

void TestProjects::a_checkpoint_that_moved_is_said()
{
    open({});
    const QString file = settings_->path(QStringLiteral("moved.rankscope.json"));
    save(file);
    QVERIFY(!replaceText(file, "resources/sample", "resources/elsewhere").isEmpty());
    openWindow();
    window_->openPath(file);
    QTRY_VERIFY_WITH_TIMEOUT(window_->banner().text().contains(QStringLiteral("elsewhere")), k_long);
    QVERIFY(window_->startPageVisible());
}

void TestProjects::a_project_of_a_newer_program_is_not_overwritten()
{
    open({});
    const QString file = settings_->path(QStringLiteral("newer.rankscope.json"));
    save(file);
    const QByteArray text = replaceText(file, "\"schema\": 1", "\"schema\": 7");
    QVERIFY(!text.isEmpty());
    openWindow();
    open(file);
    edit(1, 4);
    QSignalSpy failed(&window_->projectKeeper(), &ProjectKeeper::failed);
    window_->actions().save_project->trigger();
    QTRY_COMPARE_WITH_TIMEOUT(failed.size(), 1, k_long);
    QVERIFY(window_->banner().text().contains(QStringLiteral("newer program")));
    QFile written(file);
    QVERIFY(written.open(QIODevice::ReadOnly));
    QCOMPARE(written.readAll(), text);
}

QTEST_MAIN(TestProjects)
#include "test_projects.moc"
