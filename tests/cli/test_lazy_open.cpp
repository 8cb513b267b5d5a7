// SPDX-License-Identifier: GPL-3.0-or-later
// Opening a large model costs its headers and nothing else. Sparse files of the real sizes stand for the
// models; what was read is told by the pages of the mappings that became resident.
#include "core/model/model.h"
#include "tests/support/command.h"
#include "tests/support/sparse_model.h"
#include "tests/support/test_paths.h"

#include <QProcess>
#include <QTemporaryDir>
#include <QTest>

#include <fstream>
#include <sstream>

#include <sys/resource.h>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// Resident bytes of this process's mappings of files below `folder`.
std::uint64_t resident_bytes_of(const fs::path& folder)
{
    std::ifstream maps("/proc/self/smaps");
    std::uint64_t kilobytes = 0;
    bool ours = false;
    for (std::string line; std::getline(maps, line);) {
        const bool heading = !line.empty() && line.find(' ') < line.find(':');
        if (heading)
            ours = line.find(folder.string()) != std::string::npos;
        else if (ours && line.starts_with("Rss:"))
            kilobytes += std::stoull(line.substr(4));
    }
    return kilobytes * 1024;
}

std::uint64_t resident_bytes()
{
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmRSS:"))
            return std::stoull(line.substr(6)) * 1024;
    }
    return 0;
}

} // namespace

Q_DECLARE_METATYPE(rankscope::test::SparseShape)

class TestLazyOpen : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void only_headers_are_read_data()
    {
        QTest::addColumn<test::SparseShape>("shape");
        QTest::addColumn<qulonglong>("linears");
        QTest::newRow("7B") << test::k_shape_7b << qulonglong{7 * 32};
        QTest::newRow("70B, 30 shards") << test::k_shape_70b << qulonglong{7 * 80};
    }
    void only_headers_are_read()
    {
        QFETCH(test::SparseShape, shape);
        QFETCH(qulonglong, linears);
        const QTemporaryDir place;
        const fs::path folder = fs::canonical(place.path().toStdString());
        const auto headers = test::write_sparse_model(folder, shape);
        QVERIFY2(headers, headers ? "" : headers.error().sentence().c_str());

        const std::uint64_t before = resident_bytes();
        const auto model = Model::open(folder);
        QVERIFY2(model, model ? "" : model.error().sentence().c_str());
        QCOMPARE((*model)->linears().size(), std::size_t{linears});
        QCOMPARE((*model)->checkpoint().files().size(), static_cast<std::size_t>(shape.shards));
        const std::uint64_t touched = resident_bytes_of(folder);
        constexpr std::uint64_t k_around_a_fault =
            64 << 10; // the system maps so much around each page that is read
        QVERIFY(touched > 0);
        QVERIFY2(touched <= *headers + static_cast<std::uint64_t>(shape.shards) * 2 * k_around_a_fault,
                 qPrintable(QString("%1 bytes of the files became resident, the headers have %2")
                                .arg(touched)
                                .arg(*headers)));
        QVERIFY(resident_bytes() < before + (std::uint64_t{100} << 20));

        // A weight at the end of the last file is there, and reading it touches its own pages.
        const auto view = (*model)->checkpoint().view("model.norm.weight");
        QVERIFY(view);
        QVERIFY(view->to_matrix().isZero());
        QVERIFY(resident_bytes_of(folder) > touched);
    }

    void info_stays_small()
    {
#ifdef __SANITIZE_ADDRESS__
        QSKIP("the address sanitizer has memory of its own");
#endif
        const QTemporaryDir folder;
        QVERIFY(test::write_sparse_model(folder.path().toStdString(), test::k_shape_70b));
        const auto result = test::run_cli({"info", "--tensors", folder.path()});
        QVERIFY2(result.status == 0, result.errors);
        QVERIFY(result.output.contains("model.layers.79.mlp.down_proj"));
        rusage used{};
        QCOMPARE(::getrusage(RUSAGE_CHILDREN, &used), 0);
        QVERIFY2(used.ru_maxrss < 200L << 10, qPrintable(QString("%1 KiB").arg(used.ru_maxrss)));
    }

    void a_file_cut_off_under_a_running_command_is_an_error()
    {
        const QTemporaryDir place;
        const QString model = place.filePath("model");
        fs::copy(test::sample_folder(), model.toStdString(), fs::copy_options::recursive);
        const fs::path weights = fs::path(model.toStdString()) / "model.safetensors";
        fs::permissions(weights, fs::perms::owner_write, fs::perm_options::add);
        const QString out = place.filePath("cal");
        QProcess process;
        process.start(QString::fromStdString(test::cli_program().string()),
                      {"calibrate", model, "--text", model + "/calibration.txt", "--samples", "800",
                       "--length", "64", "--threads", "1", "--out", out});
        QVERIFY(process.waitForStarted());
        // The first block is through, the others are not read yet.
        QTRY_VERIFY_WITH_TIMEOUT(QFile::exists(out + ".unfinished/pass.json"), 60'000);
        fs::resize_file(weights, 4096);
        QVERIFY(process.waitForFinished(60'000));
        QCOMPARE(process.exitStatus(), QProcess::NormalExit);
        QCOMPARE(process.exitCode(), 3);
        const QByteArray said = process.readAllStandardError();
        QVERIFY2(said.contains("model.safetensors"), said);
        QVERIFY(!QFile::exists(out));
    }
};

QTEST_GUILESS_MAIN(TestLazyOpen)
#include "test_lazy_open.moc"
