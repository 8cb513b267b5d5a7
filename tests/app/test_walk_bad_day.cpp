// SPDX-License-Identifier: GPL-3.0-or-later
// A bad day: files that are not there, cut short, or lie; a full drive; a graphics driver that gives up. Each says what
// happened, where, and what to do; nothing that was finished is lost, and the window stays as usable as before.
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/project_keeper.h"
#include "core/base/atomic_file.h"
#include "core/run/project.h"
#include "gpu/faults.h"
#include "tests/app/walk.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/sample_model.h"

#include <QDir>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QSignalSpy>
#include <QTreeView>

using namespace rankscope;
using namespace rankscope::test;

class TestWalkBadDay : public QObject, Walk {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { beginWalks(); }
    void init() { openWindow(); }
    void cleanup() { endWindow(); }
    void a_file_that_is_not_there();
    void a_truncated_shard();
    void a_name_twice();
    void noise();
    void an_unknown_family_is_open_for_its_weights();
    void a_full_drive_during_a_run();
    void a_full_drive_during_an_export();
    void a_lost_device();
    void a_checkpoint_that_moved();
    void cleanupTestCase() { endWalks(); }

private:
    void expectRefusal(const QString& path, const QStringList& words);
    void stillUsable();
    void copySample(const QString& folder);
    void runRows(const QVector<int>& rows);
};

/// The banner has all these words, and the start page is still there.
void TestWalkBadDay::expectRefusal(const QString& path, const QStringList& words)
{
    window_->banner().dismiss();
    WALK(drop(path));
    const QString said = window_->banner().text();
    for (const QString& word : words)
        QVERIFY2(said.contains(word), qPrintable(said));
    QVERIFY2(!said.contains(QLatin1Char('!')), qPrintable(said));
    QVERIFY(window_->startPageVisible());
}

void TestWalkBadDay::stillUsable()
{
    WALK(openSampleWithTheMouse());
    QVERIFY(window_->banner().text().isEmpty());
    QCOMPARE(window_->session().plan().rows.size(), std::size_t{35});
}

void TestWalkBadDay::copySample(const QString& folder)
{
    QVERIFY(QDir().mkpath(folder));
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
        const QString copy = folder + QLatin1Char('/') + QLatin1String(name);
        QVERIFY(QFile::copy(QString::fromStdString((sample_folder() / name).string()), copy));
        QVERIFY(QFile::setPermissions(copy, QFile::ReadOwner | QFile::WriteOwner));
    }
}

void TestWalkBadDay::runRows(const QVector<int>& rows)
{
    WALK(onlyRows(rows));
    enter(QStringLiteral("running"));
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QVERIFY(window_->workflow().running());
    QTRY_VERIFY_WITH_TIMEOUT(!window_->workflow().running(), k_long);
}

void TestWalkBadDay::a_file_that_is_not_there()
{
    const QString path = settings_.path(QStringLiteral("not there"));
    WALK(expectRefusal(path, {path}));
    WALK(stillUsable());
}

void TestWalkBadDay::a_truncated_shard()
{
    const QString folder = settings_.path(QStringLiteral("torn"));
    QVERIFY(shard_sample(toPath(folder)));
    const QString name = QStringLiteral("model-00002-of-00003.safetensors");
    QFile shard(folder + QLatin1Char('/') + name);
    QVERIFY(shard.resize(shard.size() / 2));
    WALK(expectRefusal(folder, {name, QStringLiteral("bytes"), QStringLiteral("ownload")}));
    QVERIFY(QFile::remove(shard.fileName()));
    WALK(expectRefusal(folder, {name, QStringLiteral("missing")}));
    WALK(stillUsable());
}

void TestWalkBadDay::a_name_twice()
{
    const QString folder = settings_.path(QStringLiteral("twice"));
    WALK(copySample(folder));
    std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                         R"("w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})";
    header.append(8 - header.size() % 8, ' ');
    std::string bytes(1, static_cast<char>(header.size()));
    bytes.append(7, '\0').append(header).append(16, '\0');
    QVERIFY(write_text_file(toPath(folder + QStringLiteral("/model.safetensors")), bytes, true));
    WALK(expectRefusal(folder, {QStringLiteral("model.safetensors"), QStringLiteral("\"w\""), QStringLiteral("twice")}));
    WALK(stillUsable());
}

void TestWalkBadDay::noise()
{
    const QString file = settings_.path(QStringLiteral("noise.safetensors"));
    QVERIFY(write_text_file(toPath(file), std::string(4096, '\xff'), true));
    WALK(expectRefusal(file, {QStringLiteral("noise.safetensors")}));
    WALK(stillUsable());
}

void TestWalkBadDay::an_unknown_family_is_open_for_its_weights()
{
    enter(QStringLiteral("unknown family"));
    const QString zebra = settings_.path(QStringLiteral("zebra"));
    WALK(copySample(zebra));
    QFile config(zebra + QStringLiteral("/config.json"));
    QVERIFY(config.open(QIODevice::ReadOnly));
    QByteArray text = config.readAll();
    config.close();
    text.replace("\"model_type\": \"llama\"", "\"model_type\": \"zebra\"");
    QVERIFY(config.open(QIODevice::WriteOnly | QIODevice::Truncate) && config.write(text) == text.size());
    config.close();

    WALK(drop(zebra));
    QVERIFY(!window_->startPageVisible());
    // What cannot be is not offered: no calibration, and a plan that runs without one.
    QVERIFY2(window_->banner().text().contains(QStringLiteral("zebra")),
             qPrintable(window_->banner().text()));
    QVERIFY(window_->banner().findChildren<QPushButton*>().isEmpty());
    QVERIFY(!window_->actions().calibrate_built_in->isEnabled());
    QTest::keyClick(window_.get(), Qt::Key_F5);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().run() && window_->session().run()->complete(), k_long);
    QVERIFY(!window_->actions().evaluate->isEnabled());
}

void TestWalkBadDay::a_full_drive_during_a_run()
{
    WALK(openSampleWithTheMouse());
    WALK(waitUntilCalibrated());
    // Layer files of 60 kB, which are larger than all others that a run writes.
    Plan large = window_->session().plan();
    QVERIFY(apply_setting(large, "*:method=svd_residual,bits=8,rank=64"));
    window_->session().editPlan(QStringLiteral("large"), large);
    QVector<int> rows;
    for (const char* block : {"0", "1", "2"})
        rows << window_->planDock().model().rowOf(
            QStringLiteral("model.layers.%1.mlp.down_proj").arg(QLatin1String(block)));
    {
        const FileSizeLimit limit(35000);
        WALK(runRows(rows));
    }
    const QString said = window_->banner().text();
    QVERIFY2(said.contains(QStringLiteral("of 3 layers failed")) && said.contains(QStringLiteral("drive")), qPrintable(said));
    QCOMPARE(window_->session().plan().rows.size(), std::size_t{35}); // the plan is as it was
    // There is room again: the job goes on from where it was.
    enter(QStringLiteral("retrying"));
    QTest::keyClick(window_.get(), Qt::Key_3, Qt::ControlModifier);
    auto* retry = window_->findChild<QPushButton*>(QStringLiteral("job_pause"));
    QVERIFY2(retry->isEnabled() && retry->text() == QLatin1String("Retry"), qPrintable(retry->text()));
    click(retry);
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    QVERIFY(window_->session().run()->complete());
    QCOMPARE(window_->session().run()->results().size(), std::size_t{3});
}

void TestWalkBadDay::a_full_drive_during_an_export()
{
    WALK(openSampleWithTheMouse());
    WALK(waitUntilCalibrated());
    WALK(runRows({0}));
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value(), k_long);
    const QString folder = settings_.path(QStringLiteral("full"));
    WALK(openExport(folder));
    ExportDialog& dialog = *window_->exportDialog();
    {
        const FileSizeLimit limit(20000);
        click(&dialog.exportButton());
        QTRY_VERIFY_WITH_TIMEOUT(!dialog.exportButton().isEnabled(), k_long);
        QTRY_VERIFY_WITH_TIMEOUT(dialog.exportButton().isEnabled(), k_long);
    }
    QVERIFY(!dialog.checkPassed());
    QVERIFY2(dialog.verdict().contains(QStringLiteral("drive")), qPrintable(dialog.verdict()));
    QVERIFY2(!QFile::exists(folder), "nothing half-written");
    click(&dialog.exportButton());
    QTRY_VERIFY_WITH_TIMEOUT(dialog.checkPassed(), k_long);
    dialog.close();
}

/// On a software device, which is told to be lost.
void TestWalkBadDay::a_lost_device()
{
    // Calibrated on the CPU: a software device takes minutes for it.
    WALK(openSampleWithTheMouse());
    WALK(waitUntilCalibrated());
    endWindow();
    openWindow(QStringLiteral("vulkan"));
    WALK(openSampleWithTheMouse());
    WALK(waitUntilCalibrated());
    if (window_->device().fallback())
        QSKIP("there is no Vulkan device here");
    inject_faults(*window_->device().backend(), {.lost_at_submit = 5});
    WALK(runRows({0, 1, 2}));
    QVERIFY(window_->session().run() && window_->session().run()->complete());
    for (const LayerResult& result : window_->session().run()->results())
        QVERIFY2(result.backend == "cpu", result.backend.c_str());
    // What comes after is computed without it, and said once where everybody sees it.
    QTRY_VERIFY_WITH_TIMEOUT(window_->session().evaluation().has_value() || window_->runner().idle(), k_long);
    QVERIFY2(window_->session().evaluation().has_value(), qPrintable(window_->banner().text()));
    // The run says it, whatever views have asked of the device before or since.
    QString warnings;
    for (const JobId job : window_->runner().jobs())
        warnings += window_->runner().info(job).progress.warnings.join(QLatin1Char('\n')) + QLatin1Char('\n');
    QVERIFY2(warnings.contains(QStringLiteral("computed again on the CPU; 0 finished")), qPrintable(warnings));
    QVERIFY2(warnings.contains(QStringLiteral("This is computed again on the CPU")), qPrintable(warnings));
    QVERIFY2(window_->banner().text().contains(QStringLiteral("Computing on the CPU")),
             qPrintable(window_->banner().text()));
    QVERIFY(window_->device().isCpu());
}

void TestWalkBadDay::a_checkpoint_that_moved()
{
    const QString folder = settings_.path(QStringLiteral("here"));
    WALK(copySample(folder));
    WALK(drop(folder));
    QVERIFY(window_->session().model());
    const QString file = settings_.path(QStringLiteral("talk.rankscope.json"));
    QSignalSpy saved(&window_->projectKeeper(), &ProjectKeeper::saved);
    window_->projectKeeper().save(file, false);
    QVERIFY(saved.wait(k_long));
    endWindow();
    QVERIFY(QDir().rename(folder, settings_.path(QStringLiteral("elsewhere"))));
    openWindow();
    WALK(expectRefusal(file, {folder}));
    const auto project = Project::read(toPath(file)); // nothing of it is lost
    QVERIFY(project.has_value());
    QCOMPARE(project->plan.rows.size(), std::size_t{35});
    QVERIFY(QDir().rename(settings_.path(QStringLiteral("elsewhere")), folder)); // it is put back
    window_->banner().dismiss();
    WALK(drop(file));
    QCOMPARE(window_->session().projectFile(), file);
}

QTEST_MAIN(TestWalkBadDay)
#include "test_walk_bad_day.moc"
