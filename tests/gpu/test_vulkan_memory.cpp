// SPDX-License-Identifier: GPL-3.0-or-later
// Buffers, lifetime, threads and the caches on disk of the Vulkan backend.
#include "tests/gpu/vulkan_fixture.h"
#include "tests/support/numbers.h"

#include <QDir>
#include <QFile>

#include <atomic>
#include <thread>

using namespace rankscope;
using namespace rankscope::test;

namespace {

std::size_t resident_kilobytes()
{
    QFile status("/proc/self/status");
    if (!status.open(QIODevice::ReadOnly))
        return 0;
    for (const QByteArray& line : status.readAll().split('\n')) {
        if (line.startsWith("VmRSS:"))
            return line.mid(6).trimmed().split(' ').first().toULongLong();
    }
    return 0;
}

qsizetype thread_total()
{
    return QDir("/proc/self/task").entryList(QDir::Dirs | QDir::NoDotAndDotDot).size();
}

} // namespace

class TestVulkanMemory : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { fixture_.start(); }
    void init() { fixture_.skip_without_device(); }
    void cleanupTestCase() { fixture_.finish(); }

    void float64_lives_on_the_host()
    {
        const auto backend = open({.validation = true});
        const MatrixD a = random_matrix(13, 9, 7);
        const Buffer buffer = backend->upload(a);
        QCOMPARE(buffer.precision(), Precision::Float64);
        QVERIFY(backend->download_double(buffer) == a);
        QVERIFY(backend->download_double(backend->copy(buffer)) == a);
        const Buffer single = backend->convert(buffer, Precision::Float32);
        QVERIFY(backend->download(single) == Matrix(a.cast<float>()));
        QVERIFY(backend->download_double(backend->convert(single, Precision::Float64))
                == MatrixD(a.cast<float>().cast<double>()));
        const MatrixD product =
            backend->download_double(backend->multiply(buffer, Transpose::No, buffer, Transpose::Yes));
        QVERIFY(relative_difference(product, MatrixD(a * a.transpose())) < 1e-14);
    }

    void factorizations_fall_back_to_the_host()
    {
        const auto backend = open({.validation = true});
        const MatrixD moments = random_moments(37, 8);
        const Buffer h = backend->upload(Matrix(moments.cast<float>()));
        const auto factor = backend->cholesky(h);
        QVERIFY(factor.has_value());
        const Matrix lower = backend->download(*factor);
        QVERIFY(relative_difference(Matrix(lower * lower.transpose()), moments) < 1e-6);
        Buffer y = backend->upload(random_floats(37, 5, 9));
        backend->orthonormalize(y); // changed in place: the result must reach the device
        const Matrix basis = backend->download(backend->multiply(y, Transpose::Yes, y, Transpose::No));
        QVERIFY((basis - Matrix::Identity(5, 5)).norm() < 1e-5F);
        QVERIFY(!backend->cholesky(backend->upload(Matrix(-Matrix::Identity(4, 4)))).has_value());
    }

    void empty_matrices_are_fine()
    {
        const auto backend = open({.validation = true});
        Buffer none = backend->allocate(0, 5);
        QCOMPARE(backend->download(none).cols(), Index{5});
        QCOMPARE(backend->copy(none).rows(), Index{0});
        backend->scale_columns(none, VectorD::Ones(5));
        backend->add_scaled(1.0, none, 1.0, none);
        QCOMPARE(backend->dot(none, none), 0.0);
        QCOMPARE(backend->max_abs(none), 0.0);
        QCOMPARE(backend->gather_columns(backend->allocate(3, 4), {}).cols(), Index{0});
        // A product over no terms is beta · c.
        Buffer c = backend->upload(Matrix(Matrix::Constant(5, 5, 2.0F)));
        backend->gemm(1.0, none, Transpose::Yes, none, Transpose::No, 0.5, c);
        QVERIFY(backend->download(c) == Matrix(Matrix::Ones(5, 5)));
    }

    void copies_do_not_share_and_handles_do()
    {
        const auto backend = open({.validation = true});
        const Matrix a = random_floats(31, 17, 10);
        Buffer first = backend->upload(a);
        const Buffer same = first;
        const Buffer copy = backend->copy(first);
        backend->scale_rows(first, VectorD::Constant(31, 2.0));
        QVERIFY(backend->download(same) == Matrix(2.0F * a));
        QVERIFY(backend->download(copy) == a);
        const Matrix wide = random_floats(40, 40, 11); // a part whose rows do not touch
        QVERIFY(backend->download(backend->upload(wide.block(3, 4, 20, 9)))
                == Matrix(wide.block(3, 4, 20, 9)));
        QVERIFY(backend->download(backend->allocate(300, 7)).isZero(0.0F));
    }

    void failures_are_said()
    {
        const auto backend = open({.validation = true});
        const Buffer a = backend->allocate(3, 4);
        Buffer c = backend->allocate(3, 3);
        QCOMPARE(failure_kind([&] { backend->allocate(Index{1} << 30, Index{1} << 20); }),
                 ErrorKind::NoSpace);
        QCOMPARE(failure_kind([&] { backend->allocate(Index{1} << 40, Index{1} << 40); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->allocate(-1, 2); }), ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gemm(1.0, a, Transpose::No, a, Transpose::No, 0.0, c); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->download(fixture_.cpu().allocate(3, 4)); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gather_rows(a, std::vector<Index>{3}); }), ErrorKind::Internal);
        QCOMPARE(failure_kind([&] { backend->gather_columns(a, std::vector<Index>{-1}); }),
                 ErrorKind::Internal);
        QCOMPARE(failure_kind([&] {
                     backend->cross_entropy(a, std::vector<Index>{0, 1, 4});
                 }),
                 ErrorKind::Internal);
        QVERIFY(backend->download(a).isZero(0.0F)); // and the backend goes on working
    }

    // Lifetime and threads ----------------------------------------------------------------------------------
    void four_threads_share_one_backend()
    {
        const auto backend = open({.validation = true});
        std::atomic<int> wrong = 0;
        std::vector<std::thread> threads;
        for (std::uint64_t id = 0; id < 4; ++id) {
            threads.emplace_back([&, id] {
                for (std::uint64_t round = 0; round < 6; ++round) {
                    const Index n = 33 + 16 * static_cast<Index>(id) + static_cast<Index>(round);
                    const Matrix x = random_floats(n, 64, 100 * id + round);
                    Buffer turned = backend->upload(x);
                    backend->hadamard(turned, Transpose::No);
                    Buffer gram = backend->allocate(n, n);
                    backend->gram(1.0, turned, Transpose::No, 0.0, gram); // the transform is orthogonal
                    const MatrixD exact = x.cast<double>() * x.cast<double>().transpose();
                    if (!(relative_difference(backend->download(gram), exact) < 2e-6))
                        ++wrong;
                }
            });
        }
        for (std::thread& thread : threads)
            thread.join();
        QCOMPARE(wrong.load(), 0);
    }

    void buffers_outlive_their_backend()
    {
        auto backend = open({.validation = true});
        Buffer kept = backend->upload(random_floats(20, 20, 12));
        backend->add_scaled(1.0, backend->copy(kept), 1.0, kept); // recorded, never asked for
        backend.reset();
        kept = {};
    }

    void opening_and_closing_leaks_nothing()
    {
        const auto round = [] {
            const auto backend = open({});
            const Buffer a = backend->upload(random_floats(70, 70, 13));
            QVERIFY(backend->max_abs(backend->multiply(a, a)) > 0.0);
        };
        for (int i = 0; i < 4; ++i)
            round(); // the driver's own one-time memory
        const std::size_t before = resident_kilobytes();
        const qsizetype threads = thread_total();
        for (int i = 0; i < 16; ++i)
            round();
        QCOMPARE(thread_total(), threads);
        const std::size_t after = resident_kilobytes();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        QSKIP("a sanitizer keeps freed memory; its own leak check stands in");
#endif
        QVERIFY2(after < before + 16'384, qPrintable(QStringLiteral("%1 → %2 KiB").arg(before).arg(after)));
    }

    void pipeline_cache_is_kept_and_a_broken_one_ignored()
    {
        QTemporaryDir folder;
        qputenv("XDG_CACHE_HOME", folder.path().toUtf8());
        const auto use = [] {
            const auto backend = open({.validation = true});
            const Matrix a = random_floats(5, 6, 14);
            const Matrix b = random_floats(6, 4, 15);
            const Matrix product =
                backend->download(backend->multiply(backend->upload(a), backend->upload(b)));
            return relative_difference(product, Matrix(a * b)) < 1e-6;
        };
        const auto files = [&] { return QDir(folder.filePath("rankscope")).entryInfoList(QDir::Files); };
        const auto content = [&] {
            QFile file(files().first().filePath());
            return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
        };
        QVERIFY(use());
        QCOMPARE(files().size(), 1);
        const QByteArray whole = content();
        QVERIFY(whole.size() > 64);
        for (const QByteArray& broken : {whole.left(70), QByteArray(), QByteArray(5000, 'x'), whole + "more",
                                         QByteArray(whole).replace(80, 4, "????")}) {
            QFile file(files().first().filePath());
            QVERIFY(file.open(QIODevice::WriteOnly | QIODevice::Truncate));
            file.write(broken);
            file.close();
            QVERIFY(use());
            QVERIFY(content() != broken); // written anew
            QCOMPARE(files().size(), 1);
        }
        qputenv("XDG_CACHE_HOME", "/proc/nowhere"); // not writable: costs time and nothing else
        QVERIFY(use());
        fixture_.use_own_cache();
    }

private:
    VulkanFixture fixture_;
};

QTEST_GUILESS_MAIN(TestVulkanMemory)
#include "test_vulkan_memory.moc"
