// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/run.h"
#include "tests/support/copying_backend.h"
#include "tests/support/run_fixture.h"
#include "tests/support/test_monitor.h"
#include "tests/support/verify.h"

#include <QTemporaryDir>
#include <QtTest>

#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>
#include <mutex>

using namespace rankscope;
using rankscope::test::sample_plan;
namespace fs = std::filesystem;

namespace {

constexpr char k_last_layer[] = "model.layers.4.mlp.down_proj";

/// A device that dies after so many uploads.
class DyingBackend final : public test::CopyingBackend {
public:
    DyingBackend(int uploads, ErrorKind kind) : left_(uploads), kind_(kind) {}
    std::string id() const override { return "test:dying"; }
    using test::CopyingBackend::upload;
    Buffer upload(const Eigen::Ref<const Matrix>& matrix) override
    {
        if (left_-- <= 0)
            throw BackendFailure(Error{kind_, "the device was lost", {}, {}});
        return CopyingBackend::upload(matrix);
    }

private:
    std::atomic<int> left_;
    ErrorKind kind_;
};

} // namespace

/// Runs that meet a bad weight, a dying device, damaged files, or a place that takes no bytes.
class TestRunFaults : public QObject, protected test::RunFixture {
    Q_OBJECT

private slots:
    void initTestCase() { make_whole_run(); }
    void failing_layer_does_not_stop_the_others();
    void dead_device_gives_its_layers_to_the_cpu_data();
    void dead_device_gives_its_layers_to_the_cpu();
    void damaged_layer_is_computed_again();
    void unwritable_places_data();
    void unwritable_places();
    void full_disk_before_the_start();
    void full_disk_in_the_middle();
};

void TestRunFaults::failing_layer_does_not_stop_the_others()
{
    test::copy_sample_with(place("broken"), "model.layers.1.mlp.up_proj.weight",
                           std::numeric_limits<float>::quiet_NaN());
    const auto model = Model::open(place("broken"));
    VERIFY_OK(model);
    std::vector<std::string> failed;
    std::mutex mutex;
    RunEvents events;
    events.layer_changed = [&](const std::string& layer, LayerState state, const std::string& message) {
        const std::lock_guard lock(mutex);
        if (state == LayerState::Failed)
            failed.push_back(layer + ": " + message);
    };
    const auto status = Run::execute(*model, sample_plan("rtn"), nullptr, place("broken run"), {}, *backend_,
                                     silent_monitor(), events);
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::BadInput);
    const QString sentence = QString::fromStdString(status.error().sentence());
    QVERIFY2(sentence.contains("1 of 35") && sentence.contains("model.layers.1.mlp.up_proj"),
             qPrintable(sentence));
    QCOMPARE(failed.size(), std::size_t{1});
    const auto run = Run::open(place("broken run"));
    VERIFY_OK(run);
    QCOMPARE((*run)->results().size(), std::size_t{34});
    QVERIFY(!layers_of(place("broken run")).contains("model.layers.1.mlp.up_proj.safetensors"));
}

void TestRunFaults::dead_device_gives_its_layers_to_the_cpu_data()
{
    QTest::addColumn<bool>("lost");
    QTest::newRow("device lost") << true;
    QTest::newRow("device out of memory") << false;
}

void TestRunFaults::dead_device_gives_its_layers_to_the_cpu()
{
    QFETCH(bool, lost);
    const fs::path target = place(lost ? "lost" : "out of memory");
    DyingBackend dying(40, lost ? ErrorKind::NoDevice : ErrorKind::NoSpace);
    test::TestMonitor monitor;
    VERIFY_OK(Run::execute(model_, sample_plan("odlri"), calibration_, target, {}, dying, monitor));
    QVERIFY(layers_of(target) == whole_); // the copying device computes what the CPU does
    int on_device = 0;
    int on_cpu = 0;
    const auto run = Run::open(target);
    VERIFY_OK(run);
    for (const LayerResult& result : (*run)->results())
        ++(result.backend == "cpu" ? on_cpu : on_device);
    QVERIFY2(on_cpu > 0, "no layer fell back");
    const auto said =
        std::count_if(monitor.warnings().begin(), monitor.warnings().end(), [](const std::string& line) {
            return line.find("The device failed") != std::string::npos;
        });
    QCOMPARE(said, std::ptrdiff_t{1});
    QCOMPARE(on_device + on_cpu, static_cast<int>(model_->linears().size()));
}

void TestRunFaults::damaged_layer_is_computed_again()
{
    VERIFY_OK(execute(sample_plan("odlri"), place("damaged")));
    const fs::path first = place("damaged") / "layers" / "model.layers.0.mlp.up_proj.safetensors";
    const fs::path second = place("damaged") / "layers" / (std::string(k_last_layer) + ".safetensors");
    fs::resize_file(first, fs::file_size(first) / 2);
    fs::remove(second);
    const auto run = Run::open(place("damaged"));
    VERIFY_OK(run);
    const auto truncated = (*run)->decomposition("model.layers.0.mlp.up_proj");
    QVERIFY(!truncated);
    QVERIFY(truncated.error().sentence().find("up_proj") != std::string::npos);
    RunOptions resume;
    resume.resume = true;
    VERIFY_OK(execute(sample_plan("odlri"), place("damaged"), resume));
    QVERIFY(layers_of(place("damaged")) == whole_);
}

void TestRunFaults::unwritable_places_data()
{
    QTest::addColumn<QString>("path");
    std::ofstream(place("a file")) << "x";
    QTest::newRow("below a file") << QString::fromStdString(place("a file") / "run");
    QTest::newRow("a system folder that holds no files") << "/proc/rankscope/run";
}

void TestRunFaults::unwritable_places()
{
    QFETCH(QString, path);
    const auto status = execute(sample_plan("rtn"), path.toStdString());
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::Io);
    const std::string parent = fs::path(path.toStdString()).parent_path().string();
    QVERIFY2(status.error().sentence().find(parent) != std::string::npos, status.error().sentence().c_str());
    QVERIFY(!fs::exists(path.toStdString()));
}

void TestRunFaults::full_disk_before_the_start()
{
    const fs::path disk = place("small disk");
    fs::create_directory(disk);
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=128k") != 0)
        QSKIP("a small drive can only be mounted as root");
    const auto status = execute(sample_plan("odlri"), disk / "run");
    const bool empty = fs::is_empty(disk);
    umount(disk.c_str());
    QVERIFY(!status);
    QCOMPARE(status.error().kind, ErrorKind::NoSpace);
    QVERIFY2(status.error().sentence().find("free") != std::string::npos, status.error().sentence().c_str());
    QVERIFY2(empty, "something was left half-written");
}

void TestRunFaults::full_disk_in_the_middle()
{
    const fs::path disk = place("filling disk");
    fs::create_directory(disk);
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=4m") != 0)
        QSKIP("a small drive can only be mounted as root");
    std::atomic<int> done = 0;
    RunEvents events;
    events.layer_changed = [&](const std::string&, LayerState state, const std::string&) {
        if (state == LayerState::Done && ++done == 4) {
            // Another program takes the rest of the drive.
            std::ofstream hog(disk / "hog", std::ios::binary);
            const std::string block(64 << 10, 'x');
            while (hog.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
            }
        }
    };
    const auto full = execute(sample_plan("odlri"), disk / "run", {}, silent_monitor(), events);
    bool part_left = false;
    for (const auto& [name, content] : test::folder_contents(disk / "run"))
        part_left = part_left || name.find(".part-") != std::string::npos;
    const auto partial = Run::open(disk / "run");
    fs::remove(disk / "hog");
    RunOptions resume;
    resume.resume = true;
    const auto resumed = execute(sample_plan("odlri"), disk / "run", resume);
    const auto finished = layers_of(disk / "run");
    umount(disk.c_str());
    QVERIFY(!full);
    QCOMPARE(full.error().kind, ErrorKind::NoSpace);
    QVERIFY2(full.error().sentence().find("disk") != std::string::npos
                 || full.error().sentence().find("drive") != std::string::npos,
             full.error().sentence().c_str());
    QVERIFY2(!part_left, "something was left half-written");
    VERIFY_OK(partial);
    QVERIFY((*partial)->results().size() >= 4);
    VERIFY_OK(resumed);
    QVERIFY(finished == whole_);
}

QTEST_GUILESS_MAIN(TestRunFaults)
#include "test_run_faults.moc"
