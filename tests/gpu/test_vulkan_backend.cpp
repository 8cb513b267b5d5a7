// SPDX-License-Identifier: GPL-3.0-or-later
// The Vulkan backend against the CPU one, with validation layers and synchronization validation on. CTest
// runs the same program at several vector widths of the software driver, because a kernel may depend on none.
#include "core/model/model.h"
#include "gpu/self_test_cases.h"
#include "tests/gpu/vulkan_fixture.h"
#include "tests/support/numbers.h"
#include "tests/support/test_paths.h"

#include <array>

using namespace rankscope;
using namespace rankscope::test;

namespace {

/// What a test is run on; every one of them must give the same numbers.
struct Variant {
    const char* name;
    VulkanOptions options;
};

const Variant k_variants[] = {
    {"mapped", {.validation = true}},
    {"staged", {.validation = true, .force_staging = true}},
    {"tiled", {.validation = true, .binding_limit_bytes = 70'000}},
};

} // namespace

class TestVulkanBackend : public QObject {
    Q_OBJECT

private Q_SLOTS:
    void initTestCase() { fixture_.start(); }
    void init() { fixture_.skip_without_device(); }
    void cleanupTestCase() { fixture_.finish(); }

    void operations_match_the_cpu_data()
    {
        QTest::addColumn<int>("variant");
        for (int i = 0; i < static_cast<int>(std::size(k_variants)); ++i)
            QTest::newRow(k_variants[i].name) << i;
    }
    void operations_match_the_cpu()
    {
        QFETCH(int, variant);
        const auto backend = open(k_variants[variant].options);
        // Matrices beyond a binding are for the slow test; `tiled` binds little of all of them.
        const bool large = variant == 0 && qEnvironmentVariableIsSet("RANKSCOPE_TEST_LARGE");
        const auto rows = self_test(*backend, large);
        QVERIFY2(rows.has_value(), rows ? "" : rows.error().sentence().c_str());
        QVERIFY(rows->size() > 100);
        for (const SelfTestRow& row : *rows)
            QVERIFY2(row.passed, qPrintable(QStringLiteral("%1: error %2, allowed %3")
                                                .arg(QString::fromStdString(row.operation))
                                                .arg(row.error)
                                                .arg(row.tolerance)));
    }

    void products_match_the_cpu_in_every_tiling_data()
    {
        QTest::addColumn<QString>("tiling");
        for (const std::string& name : product_tilings())
            QTest::newRow(name.c_str()) << QString::fromStdString(name);
    }
    void products_match_the_cpu_in_every_tiling()
    {
        QFETCH(QString, tiling);
        const auto backend =
            open({.validation = true, .binding_limit_bytes = 70'000, .tiling = tiling.toStdString()});
        if (product_tiling(*backend) != tiling.toStdString())
            QSKIP("too large for this device");
        int checked = 0;
        for (const gpu::SelfTestCase& item : gpu::self_test_cases()) {
            if (!item.name.starts_with("gemm") && !item.name.starts_with("gram"))
                continue;
            ++checked;
            const double error = item.error(*backend, fixture_.cpu());
            QVERIFY2(error <= item.tolerance, qPrintable(QString::fromStdString(item.name)));
        }
        QVERIFY(checked > 30);
    }

    void products_with_half_weights_are_an_option()
    {
        const auto plain = open({.validation = true});
        const Buffer same = plain->upload(random_floats(5, 4, 1));
        QVERIFY(plain->prepare_weight(same).storage() == same.storage());
        const auto backend = open({.validation = true, .binding_limit_bytes = 70'000, .half_weights = true});
        QCOMPARE(backend->id(), std::string("vulkan:0:half"));
        const auto product = [&](const Matrix& x, const Matrix& w) {
            const Buffer weight = backend->prepare_weight(backend->upload(w));
            return backend->download(
                backend->multiply(backend->upload(x), Transpose::No, weight, Transpose::Yes));
        };
        for (const auto& [tokens, out, in] :
             {std::array<Index, 3>{1, 1, 1}, {19, 65, 37}, {70, 131, 258}, {33, 300, 1031}}) {
            const Matrix x = random_floats(tokens, in, 2);
            const Matrix w = random_floats(out, in, 3);
            const MatrixD exact = x.cast<double>() * w.cast<double>().transpose();
            const double error = relative_difference(product(x, w), exact);
            QVERIFY2(error < 1.5e-3 && (in == 1 || error > 1e-5), qPrintable(QString::number(error)));
            // Whole numbers have no more than eleven bits: only the sums could be off.
            const Matrix whole_x = (8.0F * x).array().round();
            const Matrix whole_w = (8.0F * w).array().round();
            QVERIFY(product(whole_x, whole_w) == Matrix(whole_x * whole_w.transpose()));
        }
        const Matrix large = Matrix::Constant(3, 5, 1e6F); // beyond float16: its largest number
        QVERIFY(product(Matrix::Ones(2, 5), large) == Matrix(Matrix::Constant(2, 3, 5.0F * 65504.0F)));
    }

    void self_test_fails_on_wrong_numbers()
    {
        // The comparison itself: a matrix that is off by a little more than allowed, and one that is not
        // finite.
        const MatrixD right = random_matrix(9, 7, 1);
        MatrixD wrong = right;
        wrong(3, 3) += 1e-5 * right.norm();
        QVERIFY(gpu::normalized_error(right, right) == 0.0);
        QVERIFY(gpu::normalized_error(wrong, right) > 5e-6);
        wrong(3, 3) = std::numeric_limits<double>::quiet_NaN();
        QVERIFY(!std::isfinite(gpu::normalized_error(wrong, right)));
        QVERIFY(!std::isfinite(gpu::normalized_error(right.transpose(), right)));
    }

    void products_cut_into_submits_match()
    {
        const auto backend = open({.validation = true});
        const Matrix a = random_floats(521, 307, 1); // 170 MFLOP, more than one submit of a software device
        const Matrix b = random_floats(307, 533, 2);
        const Buffer product = backend->multiply(backend->upload(a), backend->upload(b));
        QVERIFY(relative_difference(backend->download(product), MatrixD(a.cast<double>() * b.cast<double>()))
                < 1e-6);
        for (const Precision precision : {Precision::Float32, Precision::Float64}) {
            const Matrix x = random_floats(307, 613, 3);
            Buffer gram = backend->allocate(613, 613, precision);
            backend->gram(1.0, backend->upload(x), Transpose::Yes, 0.0, gram);
            const MatrixD result = backend->download_double(gram);
            const MatrixD exact = x.cast<double>().transpose() * x.cast<double>();
            QVERIFY(relative_difference(result, exact) < 1e-6);
            QVERIFY(result == result.transpose());
        }
    }

    void long_gram_sums_keep_their_digits()
    {
        // 40,000 nearly equal terms: a plain float32 sum is off by 1e-5 and more.
        const auto backend = open({.validation = true});
        Matrix x = random_floats(40'001, 3, 4) * 0.01F;
        x.array() += 1.0F;
        Buffer gram = backend->allocate(3, 3, Precision::Float64);
        backend->gram(1.0, backend->upload(x), Transpose::Yes, 0.0, gram);
        const MatrixD exact = x.cast<double>().transpose() * x.cast<double>();
        QVERIFY(relative_difference(backend->download_double(gram), exact) < 3e-7);
    }

    void matrices_beyond_one_binding()
    {
        const auto backend = open({.validation = true});
        constexpr Index rows = 12'000;
        constexpr Index cols = 3'000; // 137 MiB; 128 is what a device must bind at once
        Matrix w = Matrix::Zero(rows, cols);
        const RandomStream random(5);
        for (std::uint64_t i = 0; i < 2000; ++i)
            w(static_cast<Index>(random.below(2 * i, rows)),
              static_cast<Index>(random.below(2 * i + 1, cols))) = static_cast<float>(random.normal(i));
        w(rows - 1, cols - 1) = 3.5F;
        Buffer buffer = backend->upload(w);
        QCOMPARE(backend->max_abs(buffer), static_cast<double>(w.cwiseAbs().maxCoeff()));
        QVERIFY(std::abs(backend->dot(buffer, buffer) / w.cast<double>().squaredNorm() - 1.0) < 1e-9);

        const Matrix left = random_floats(2, rows, 6);
        const MatrixD product = left.cast<double>() * w.cast<double>();
        QVERIFY(
            relative_difference(backend->download(backend->multiply(backend->upload(left), buffer)), product)
            < 1e-6);

        const UniformGrid grid{.bits = 4, .group = 0, .symmetric = true};
        const RoundedBuffers rounded = backend->round_nearest(buffer, backend->fit_grid(buffer, grid));
        const std::vector<Index> sample{0, 1, 5'999, 6'000, 11'183, 11'184, rows - 1};
        Matrix part(static_cast<Index>(sample.size()), cols);
        for (std::size_t i = 0; i < sample.size(); ++i)
            part.row(static_cast<Index>(i)) = w.row(sample[i]);
        const Buffer host = fixture_.cpu().upload(part);
        const Matrix expected = fixture_.cpu().download(
            fixture_.cpu().round_nearest(host, fixture_.cpu().fit_grid(host, grid)).values);
        QVERIFY(relative_difference(backend->download(backend->gather_rows(rounded.values, sample)), expected)
                < 1e-6);

        backend->add_scaled(-2.0, backend->copy(buffer), 1.0, buffer);
        QVERIFY(backend->download(buffer) == -w);
    }

    void forward_pass_matches_the_cpu()
    {
        auto model = Model::open(sample_folder());
        QVERIFY(model.has_value());
        std::vector<TokenId> ids;
        for (int i = 0; i < 60; ++i)
            ids.push_back(static_cast<TokenId>(1 + (i * 37) % 400));
        const auto weights = checkpoint_weights(*model);
        const auto backend = open({.validation = true});
        const auto got = logits(**model, *weights, ids, *backend, silent_monitor());
        const auto expected = logits(**model, *weights, ids, fixture_.cpu(), silent_monitor());
        QVERIFY(got.has_value() && expected.has_value());
        QVERIFY((*got - *expected).cwiseAbs().maxCoeff() < 1e-4F);
    }

private:
    VulkanFixture fixture_;
};

QTEST_GUILESS_MAIN(TestVulkanBackend)
#include "test_vulkan_backend.moc"
