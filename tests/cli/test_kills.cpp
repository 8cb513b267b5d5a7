// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/random.h"
#include "core/run/run.h"
#include "tests/support/command.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"
#include "tests/support/verify.h"

#include <QElapsedTimer>
#include <QProcess>
#include <QTemporaryDir>
#include <QtTest>

#include <signal.h>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

constexpr char k_count_variable[] = "RANKSCOPE_KILLS"; ///< how many; a few without it
constexpr int k_few_kills = 20;
constexpr int k_cuts = 6;
constexpr std::uint64_t k_seed = 20;

QString text(const fs::path& path) { return QString::fromStdString(path.string()); }

} // namespace

/// `compress --resume` after the process was killed at random moments, or the drive lost the end of a file.
class TestKills : public QObject {
    Q_OBJECT

private slots:
    void initTestCase();
    void random_kills_end_with_the_same_bytes();
    void cut_files_are_computed_again();
    void second_process_is_refused();

private:
    fs::path place(const QString& name) const
    {
        return fs::path(folder_.path().toStdString()) / name.toStdString();
    }
    QStringList arguments(const fs::path& run) const
    {
        return {"compress",      text(sample_folder()),
                "--plan",        text(place("plan.json")),
                "--calibration", text(place("calibration")),
                "--out",         text(run),
                "--resume",      "--quiet",
                "--backend",     "cpu",
                "--threads",     "2"};
    }
    /// Starts a run and kills it (SIGKILL) after so long; whether it was alive then.
    bool kill_after(const fs::path& run, double milliseconds) const;
    /// The run as it must be, whatever happened on the way; else what differs.
    QString difference(const fs::path& run) const;

    QTemporaryDir folder_;
    double duration_ms_ = 0.0;
    std::map<std::string, std::string> whole_; // the folder of an uninterrupted run, index and lock aside
    std::vector<LayerResult> results_;
};

bool TestKills::kill_after(const fs::path& run, double milliseconds) const
{
    QProcess process;
    process.start(text(cli_program()), arguments(run));
    if (!process.waitForStarted())
        qFatal("rankscope-cli does not start");
    if (process.waitForFinished(static_cast<int>(milliseconds)))
        return false;
    process.kill();
    process.waitForFinished();
    return process.exitStatus() == QProcess::CrashExit;
}

QString TestKills::difference(const fs::path& folder) const
{
    auto files = folder_contents(folder);
    files.erase("index.sqlite"); // holds times
    for (const auto& [name, content] : files) {
        const auto same = whole_.find(name);
        if (same == whole_.end())
            return "left behind: " + QString::fromStdString(name);
        if (same->second != content)
            return "differs: " + QString::fromStdString(name);
    }
    if (files.size() != whole_.size())
        return QString("%1 files instead of %2").arg(files.size()).arg(whole_.size());
    const auto run = Run::open(folder);
    if (!run)
        return QString::fromStdString(run.error().sentence());
    const auto results = (*run)->results();
    if (results.size() != results_.size())
        return QString("%1 finished layers instead of %2").arg(results.size()).arg(results_.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
        const bool same =
            results[i].layer == results_[i].layer && results[i].parameters == results_[i].parameters
            && results[i].quality.relative_activation_error == results_[i].quality.relative_activation_error
            && results[i].trace.size() == results_[i].trace.size();
        if (!same)
            return "row differs: " + QString::fromStdString(results[i].layer);
    }
    return {};
}

void TestKills::initTestCase()
{
    const QString sample = text(sample_folder());
    const QString calibration_text = text(sample_folder() / "calibration.txt");
    QCOMPARE(run_cli({"calibrate", sample, "--text", calibration_text, "--samples", "8", "--length", "64",
                      "--out", text(place("calibration")), "--quiet"})
                 .status,
             0);
    // Few iterations: many kills fit into the time, and most find a layer half done or being written.
    QCOMPARE(run_cli({"plan", sample, "--method", "odlri", "--bits", "2", "--group", "64", "--rank", "8",
                      "--set", "*:iterations=2", "--calibration", text(place("calibration")), "--out",
                      text(place("plan.json")), "--quiet"})
                 .status,
             0);
    QElapsedTimer timer;
    timer.start();
    QCOMPARE(run_cli(arguments(place("whole"))).status, 0);
    duration_ms_ = static_cast<double>(timer.nsecsElapsed()) * 1e-6;
    whole_ = folder_contents(place("whole"));
    QCOMPARE(whole_.erase("index.sqlite"), std::size_t{1});
    const auto run = Run::open(place("whole"));
    VERIFY_OK(run);
    results_ = (*run)->results();
    QVERIFY(results_.size() >= 30);
}

void TestKills::random_kills_end_with_the_same_bytes()
{
    bool given = false;
    const int wanted = qEnvironmentVariableIntValue(k_count_variable, &given);
    const int count = given ? wanted : k_few_kills;
    const RandomStream random(k_seed, "kills");
    std::uint64_t drawn = 0;
    int identical = 0;
    int too_late = 0;
    std::map<std::size_t, int> found; // finished layers when the process died, tens of them
    for (int kill = 0; kill < count;) {
        const fs::path target = place("killed");
        fs::remove_all(target);
        const double share = static_cast<double>(random.below(drawn++, 1000)) * 1e-3;
        if (!kill_after(target, share * duration_ms_)) {
            QVERIFY2(++too_late < 10 * count + 10, "the process always ends before it is killed");
            continue;
        }
        ++kill;
        const auto partial = Run::open(target);
        ++found[partial ? (*partial)->results().size() / 10 : 0];
        const CommandResult resumed = run_cli(arguments(target));
        QVERIFY2(resumed.status == 0, resumed.errors.constData());
        const QString differs = difference(target);
        QVERIFY2(differs.isEmpty(),
                 qPrintable(QString("after kill %1 at %2 of the run: %3").arg(kill).arg(share).arg(differs)));
        ++identical;
    }
    QString spread;
    for (const auto& [tens, kills] : found)
        spread += QString(" %1 to %2: %3;").arg(10 * tens).arg(10 * tens + 9).arg(kills);
    qInfo().noquote() << identical << "of" << count << "killed runs end with the same bytes; layers that were"
                      << "finished when they died:" << spread;
    QCOMPARE(identical, count);
}

void TestKills::cut_files_are_computed_again()
{
    const RandomStream random(k_seed, "cuts");
    const fs::path target = place("cut");
    fs::copy(place("whole"), target, fs::copy_options::recursive);
    for (std::uint64_t cut = 0; cut < k_cuts; ++cut) {
        const std::string& layer = results_[random.below(2 * cut, results_.size())].layer;
        const fs::path file = target / "layers" / (layer + ".safetensors");
        const std::uint64_t size = fs::file_size(file);
        // Nothing of it, some of it, all but a byte.
        const std::uint64_t kept = cut == 0 ? 0 : cut == 1 ? size - 1 : random.below(2 * cut + 1, size);
        fs::resize_file(file, kept);
        const CommandResult resumed = run_cli(arguments(target));
        QVERIFY2(resumed.status == 0, resumed.errors.constData());
        const QString differs = difference(target);
        QVERIFY2(differs.isEmpty(),
                 qPrintable(QString("cut to %1 of %2 bytes: %3").arg(kept).arg(size).arg(differs)));
    }
}

void TestKills::second_process_is_refused()
{
    const fs::path target = place("shared");
    QProcess first;
    first.start(text(cli_program()), arguments(target));
    QVERIFY(first.waitForStarted());
    QTRY_VERIFY_WITH_TIMEOUT(Run::is_run(target) || first.state() == QProcess::NotRunning, 60'000);
    if (first.state() == QProcess::NotRunning)
        QSKIP("the first run ended too soon to meet another");
    ::kill(static_cast<pid_t>(first.processId()), SIGSTOP); // alive, and it holds its lock
    const CommandResult second = run_cli(arguments(target));
    ::kill(static_cast<pid_t>(first.processId()), SIGCONT);
    QVERIFY(first.waitForFinished(300'000));
    QCOMPARE(second.status, 3);
    QVERIFY2(second.errors.contains("another process"), second.errors.constData());
    QCOMPARE(first.exitCode(), 0);
    QCOMPARE(difference(target), QString());
}

QTEST_GUILESS_MAIN(TestKills)
#include "test_kills.moc"
