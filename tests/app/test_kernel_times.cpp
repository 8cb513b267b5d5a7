// SPDX-License-Identifier: GPL-3.0-or-later
// What the job panel tells of a device: the kernels of a job that ran there, nothing of one on the CPU.
#include "app/workbench/docks/jobs_dock.h"
#include "app/workbench/main_window.h"
#include "app/workbench/widgets/data_table.h"
#include "gpu/vulkan_backend.h"
#include "tests/app/gui_support.h"

#include <QDir>
#include <QPlainTextEdit>
#include <QRegularExpression>

using namespace rankscope;
using namespace rankscope::test;

class TestKernelTimes : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase();
    void kernels_of_a_job_on_a_vulkan_device();
    void nothing_of_a_job_on_the_cpu();

private:
    /// Opens the sample, whose calibration begins by itself; after the first batch of a block it is stopped, because a
    /// software device would take minutes. The job panel in front, the calibration selected.
    std::unique_ptr<MainWindow> stoppedCalibration(const QString& backend);
    static QModelIndex calibration(MainWindow& window);

    PrivateSettings settings_;
};

void TestKernelTimes::initTestCase()
{
    qputenv("QT_LOGGING_RULES", "qt.qpa.*=false");
    Theme::instance().apply(*qApp, Theme::Choice::Light);
}

QModelIndex TestKernelTimes::calibration(MainWindow& window)
{
    const QAbstractItemModel& jobs = *window.jobsDock().tree().model();
    for (int row = 0; row < jobs.rowCount(); ++row) {
        const QModelIndex job = jobs.index(row, JobModel::Title);
        if (job.data().toString() == QStringLiteral("Calibrate"))
            return job;
    }
    return {};
}

std::unique_ptr<MainWindow> TestKernelTimes::stoppedCalibration(const QString& backend)
{
    WindowOptions options;
    options.backend = backend;
    options.work_root =
        settings_.path(QStringLiteral("work-%1").arg(QString(backend).remove(QLatin1Char(':'))));
    options.remember_layout = false;
    options.restore_plan = false;
    auto window = std::make_unique<MainWindow>(options);
    window->resize(1280, 800);
    window->show();
    window->openSample();
    const auto wait = [](const auto& condition) { return QTest::qWaitFor(condition, 120000); };
    if (!wait([&] { return calibration(*window).isValid(); }))
        return nullptr;
    const JobId job =
        window->jobsDock().tree().model()->data(calibration(*window), JobModel::JobRole).toULongLong();
    const auto progress = [&] { return window->runner().info(job).progress; };
    const auto in_blocks = [&] { return progress().stage.startsWith(QStringLiteral("block")); };
    if (!wait(in_blocks))
        return nullptr;
    const auto first = progress().done;
    if (!wait([&] { return progress().done > first || window->runner().idle(); }))
        return nullptr;
    window->runner().cancel(job);
    if (!wait([&] { return window->runner().idle(); }))
        return nullptr;
    window->jobsDock().raise();
    window->jobsDock().tree().setCurrentIndex(calibration(*window));
    return window;
}

void TestKernelTimes::kernels_of_a_job_on_a_vulkan_device()
{
    const auto devices = vulkan_devices();
    if (!devices || devices->empty() || !devices->front().usable)
        QSKIP("skipped: no Vulkan device");
    const auto window = stoppedCalibration(QStringLiteral("vulkan:0"));
    QVERIFY(window);
    const QModelIndex job = calibration(*window);
    QVERIFY(job.isValid());
    const QString stage = job.siblingAtColumn(JobModel::Stage).data().toString();
    QVERIFY2(stage.startsWith(QStringLiteral("Device busy ")), qPrintable(stage));
    const QString log = window->jobsDock().findChild<QPlainTextEdit*>()->toPlainText();
    QVERIFY2(log.contains(stage), qPrintable(log));
    for (const char* kernel : {"gemm", "rms_norm", "attention", "column_sums"}) {
        const QRegularExpression line(
            QStringLiteral("^%1 · [0-9.]+ % · [0-9.]+ ms · [0-9, ]+ calls?").arg(QLatin1String(kernel)),
            QRegularExpression::MultilineOption);
        QVERIFY2(line.match(log).hasMatch(), qPrintable(log));
    }
    QVERIFY2(log.contains(QRegularExpression(QStringLiteral("gemm .* GFLOP/s"))), qPrintable(log));
    const QString folder = qEnvironmentVariable("RANKSCOPE_SHOTS"); // to be looked at
    if (!folder.isEmpty())
        QVERIFY(window->grab().save(QDir(folder).filePath(QStringLiteral("kernel_times.png"))));
}

void TestKernelTimes::nothing_of_a_job_on_the_cpu()
{
    const auto window = stoppedCalibration(QStringLiteral("cpu"));
    QVERIFY(window);
    const QModelIndex job = calibration(*window);
    QVERIFY(job.isValid());
    QVERIFY(job.siblingAtColumn(JobModel::Stage).data().toString().isEmpty());
    const QString log = window->jobsDock().findChild<QPlainTextEdit*>()->toPlainText();
    QVERIFY2(!log.contains(QStringLiteral("busy")), qPrintable(log));
}

QTEST_MAIN(TestKernelTimes)
#include "test_kernel_times.moc"
