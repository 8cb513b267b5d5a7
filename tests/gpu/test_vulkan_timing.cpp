// SPDX-License-Identifier: GPL-3.0-or-later
// Times of kernels, the measured peak of a device, and the tiling of products chosen by it.
#include "tests/gpu/vulkan_fixture.h"
#include "tests/support/numbers.h"

#include <QDir>
#include <QFile>

#include <algorithm>
#include <map>

using namespace rankscope;
using namespace rankscope::test;

class TestVulkanTiming : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { fixture_.start(); }
    void init() { fixture_.skip_without_device(); }
    void cleanupTestCase() { fixture_.finish(); }

    void the_fastest_tiling_is_kept_for_the_driver()
    {
        QTemporaryDir folder;
        qputenv("XDG_CACHE_HOME", folder.path().toUtf8());
        const auto files = [&] {
            return QDir(folder.filePath("rankscope")).entryInfoList({"tiling-*.json"}, QDir::Files);
        };
        std::string chosen;
        {
            const auto backend = open({.validation = true});
            const std::string before = product_tiling(*backend);
            const auto rates = tune_products(*backend);
            QVERIFY2(rates.has_value(), rates ? "" : rates.error().sentence().c_str());
            QVERIFY(rates->size() >= 2);
            const auto fastest = std::ranges::max_element(*rates, {}, &TilingRate::flops_per_second);
            QVERIFY(fastest->chosen && fastest->flops_per_second > 0.0 && fastest->share_of_peak > 0.0);
            QCOMPARE(std::ranges::count_if(*rates, &TilingRate::chosen), std::ptrdiff_t{1});
            chosen = fastest->tiling;
            QCOMPARE(product_tiling(*backend), chosen);
            QCOMPARE(files().size(), 1);
        }
        QCOMPARE(product_tiling(*open({})), chosen);
        QFile file(files().first().filePath());
        QVERIFY(file.open(QIODevice::ReadWrite));
        const QByteArray whole = file.readAll();
        const std::vector<std::string> names = product_tilings();
        const std::string other = names[0] != chosen ? names[0] : names[2];
        const auto with = [&](const QByteArray& content) {
            file.resize(0);
            file.seek(0);
            file.write(content);
            file.flush();
            return product_tiling(*open({}));
        };
        QCOMPARE(with(QByteArray(whole).replace(chosen.c_str(), other.c_str())), other); // it is what is read
        const std::string plain = with("{}");
        for (const char* broken : {"", "{\"gemm\": 7}", "{\"gemm\": \"1x1\"}", "\xff\xfe"})
            QCOMPARE(with(broken), plain);
        QCOMPARE(tune_products(fixture_.cpu()).error().kind, ErrorKind::NoDevice);
        fixture_.use_own_cache();
    }

    void kernels_are_timed()
    {
        const auto backend = open({.validation = true, .force_staging = true});
        const Matrix a = random_floats(130, 70, 1);
        const Buffer x = backend->upload(a);
        QVERIFY(kernel_times(*backend).kernels.empty()); // not before somebody asks
        QVERIFY(measure_kernels(*backend));
        for (int round = 0; round < 300; ++round) // more than a submit holds
            (void)backend->multiply(x, Transpose::Yes, x, Transpose::No);
        Buffer y = backend->copy(x);
        backend->add_scaled(1.0, x, 1.0, y);
        const KernelTimes times = kernel_times(*backend);
        double sum = 0.0;
        double share = 0.0;
        double shortest = times.wall_seconds;
        std::map<std::string, KernelTime> found;
        for (const KernelTime& kernel : times.kernels) {
            QVERIFY(kernel.seconds > 0.0 && kernel.seconds <= shortest); // the longest first
            shortest = kernel.seconds;
            sum += kernel.seconds;
            share += kernel.share;
            found[kernel.kernel] = kernel;
        }
        QVERIFY(std::abs(sum - times.busy_seconds) <= 1e-12 && std::abs(share - 1.0) < 1e-9);
        QVERIFY(times.busy_seconds <= times.wall_seconds);
        QCOMPARE(found.size(), std::size_t{4});
        QCOMPARE(found["gemm"].calls, std::uint64_t{300});
        QCOMPARE(found["gemm"].flops, 300.0 * 2.0 * 70 * 70 * 130);
        QCOMPARE(found["gemm"].bytes, 0.0);
        QCOMPARE(found["add_scaled"].bytes, 3.0 * 4.0 * 130 * 70);
        QCOMPARE(found["copy"].calls, std::uint64_t{1});
        QCOMPARE(found["fill"].calls, std::uint64_t{300}); // a new result starts at zero

        QVERIFY(measure_kernels(*backend)); // from zero
        QVERIFY(kernel_times(*backend).kernels.empty());
        QVERIFY(measure_kernels(*backend, false));
        (void)backend->multiply(x, Transpose::Yes, x, Transpose::No);
        QVERIFY(kernel_times(*backend).kernels.empty());
        QVERIFY(!measure_kernels(fixture_.cpu()) && kernel_times(fixture_.cpu()).kernels.empty());
    }

    void peak_is_measured()
    {
        const auto backend = open({.validation = true});
        const auto peak = measure_peak(*backend);
        QVERIFY(peak.has_value());
        QVERIFY(peak->flops_per_second > 1e7 && peak->flops_per_second < 1e15);
        QVERIFY(peak->bytes_per_second > 1e7 && peak->bytes_per_second < 1e14);
        QVERIFY(kernel_times(*backend).kernels.empty());
        QCOMPARE(measure_peak(fixture_.cpu()).error().kind, ErrorKind::NoDevice);
    }

private:
    VulkanFixture fixture_;
};

QTEST_GUILESS_MAIN(TestVulkanTiming)
#include "test_vulkan_timing.moc"
