// SPDX-License-Identifier: GPL-3.0-or-later
//
// No exporter leaves anything half-written, whatever stops it.
#include "core/base/atomic_file.h"
#include "tests/support/export_support.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QtTest>

#include <sys/mount.h>

using namespace rankscope;
using test::text_of;
namespace fs = std::filesystem;

namespace {

/// A drive of a few pages, where the system allows one.
class TinyDrive {
public:
    TinyDrive(fs::path folder, const char* size) : folder_(std::move(folder))
    {
        fs::create_directories(folder_);
        mounted_ = mount("tmpfs", folder_.c_str(), "tmpfs", 0, size) == 0;
    }
    TinyDrive(const TinyDrive&) = delete;
    TinyDrive& operator=(const TinyDrive&) = delete;
    ~TinyDrive()
    {
        if (mounted_)
            umount(folder_.c_str());
    }
    bool mounted() const { return mounted_; }
    const fs::path& folder() const { return folder_; }

private:
    fs::path folder_;
    bool mounted_ = false;
};

} // namespace

class TestExportSafety : public QObject {
    Q_OBJECT

private slots:
    void init() { folder_ = std::make_unique<QTemporaryDir>(); }
    void existing_folders_are_safe_data() { test::add_format_rows(); }
    void existing_folders_are_safe();
    void cancelled_leaves_nothing_data() { test::add_format_rows(); }
    void cancelled_leaves_nothing();
    void unwritable_place_is_an_error_data() { test::add_format_rows(); }
    void unwritable_place_is_an_error();
    void failing_write_leaves_nothing_data() { test::add_format_rows(); }
    void failing_write_leaves_nothing();
    void full_drive_is_said_before_the_first_byte_data() { test::add_format_rows(); }
    void full_drive_is_said_before_the_first_byte();
    void rounding_twice_needs_consent();

private:
    fs::path file(const char* name) const { return fs::path(folder_->path().toStdString()) / name; }
    Status write(const Exporter& exporter, const fs::path& out, bool replace = false,
                 Monitor& monitor = silent_monitor())
    {
        return exporter.write(*runs_.fit_for(exporter), *runs_.model(), out, {replace}, monitor);
    }

    test::SampleRuns runs_;
    std::unique_ptr<QTemporaryDir> folder_;
};

void TestExportSafety::existing_folders_are_safe()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(write(exporter, file("out")));
    const auto before = test::folder_contents(file("out"));
    const Status again = write(exporter, file("out"));
    QVERIFY(!again);
    QCOMPARE(again.error().kind, ErrorKind::BadInput);
    QVERIFY2(text_of(again).contains("--force"), qPrintable(text_of(again)));
    QVERIFY(test::folder_contents(file("out")) == before);
    QVERIFY(write_text_file(file("out") / "config.json", "{}", true));
    QVERIFY(write(exporter, file("out"), true));
    QVERIFY(test::folder_contents(file("out")) == before);
    // --force never takes somebody else's folder, the checkpoint's own least of all.
    fs::copy(test::sample_folder(), file("checkpoint"));
    QVERIFY(!write(exporter, file("checkpoint"), true));
    QVERIFY(fs::exists(file("checkpoint") / "calibration.txt"));
}

void TestExportSafety::rounding_twice_needs_consent()
{
    const Exporter& packed = **require_exporter("hf-qlr");
    QVERIFY(write(packed, file("packed")));
    const auto model = Model::open(file("packed"));
    QVERIFY2(model.has_value(), model ? "" : model.error().sentence().c_str());
    const auto run = test::quick_run(*model, file("run"), "svd_residual", {{"bits", std::int64_t{3}}});
    QVERIFY(run);
    int written = 0;
    for (const Exporter* exporter : exporters()) {
        const std::string& id = exporter->info().id;
        const bool holds_weights = id != "report";
        QVERIFY(exporter->source_is_exact(*runs_.fit_for(*exporter), *runs_.model()));
        QVERIFY2(exporter->source_is_exact(*run, **model).has_value() != holds_weights, id.c_str());
        if (!holds_weights || !exporter->accepts(*run, **model))
            continue;
        const Status refused = exporter->write(*run, **model, file("out"), {}, silent_monitor());
        QVERIFY2(!refused && text_of(refused).contains("rounded twice"), id.c_str());
        QVERIFY(!fs::exists(file("out")));
        QVERIFY2(exporter->write(*run, **model, file(id.c_str()), {.requantize = true}, silent_monitor()), id.c_str());
        QVERIFY2(exporter->check(*run, **model, file(id.c_str()), silent_monitor()), id.c_str());
        ++written;
    }
    QVERIFY(written > 0);
}

void TestExportSafety::cancelled_leaves_nothing()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    test::TestMonitor whole;
    QVERIFY(write(exporter, file("whole"), false, whole));
    fs::remove_all(file("whole"));
    for (const std::int64_t after :
         {std::int64_t{0}, whole.reports() / 3, whole.reports() / 2, whole.reports() - 2}) {
        test::TestMonitor monitor(after);
        const Status written = write(exporter, file("out"), false, monitor);
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::Cancelled);
        QVERIFY(fs::is_empty(folder_->path().toStdString()));
    }
    QVERIFY(write(exporter, file("out")));
    test::TestMonitor monitor(5);
    QCOMPARE(exporter.check(*runs_.fit_for(exporter), *runs_.model(), file("out"), monitor).error().kind,
             ErrorKind::Cancelled);
}

void TestExportSafety::unwritable_place_is_an_error()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    QVERIFY(write_text_file(file("file"), "x", false));
    for (const fs::path& place : {file("file") / "out", fs::path("/proc/rankscope-export")}) {
        const Status written = write(exporter, place);
        QVERIFY(!written);
        QCOMPARE(written.error().kind, ErrorKind::Io);
        QVERIFY2(text_of(written).contains(QString::fromStdString(place.parent_path().string())),
                 qPrintable(text_of(written)));
    }
    QCOMPARE(*read_text_file(file("file")), std::string("x"));
}

void TestExportSafety::failing_write_leaves_nothing()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    Status written;
    {
        const test::FileSizeLimit limit(10000);
        written = write(exporter, file("out"));
    }
    QVERIFY(!written);
    QVERIFY2(written.error().kind == ErrorKind::Io || written.error().kind == ErrorKind::NoSpace,
             qPrintable(text_of(written)));
    QVERIFY2(text_of(written).contains("out.part"), qPrintable(text_of(written))); // the file at fault
    QVERIFY(fs::is_empty(folder_->path().toStdString()));
}

void TestExportSafety::full_drive_is_said_before_the_first_byte()
{
    QFETCH(QString, format);
    const Exporter& exporter = **require_exporter(format.toStdString());
    const TinyDrive drive(file("drive"), "size=64k");
    if (!drive.mounted())
        QSKIP("this user may not mount a small drive");
    const Status written = write(exporter, drive.folder() / "out");
    QVERIFY(!written);
    QCOMPARE(written.error().kind, ErrorKind::NoSpace);
    QVERIFY2(text_of(written).contains("65.5 kB is free"), qPrintable(text_of(written)));
    QVERIFY(fs::is_empty(drive.folder()));
}

QTEST_GUILESS_MAIN(TestExportSafety)
#include "test_export_safety.moc"
