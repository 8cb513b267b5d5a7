// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/backend_tests.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <algorithm>
#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

class TestCpuFactorizations : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private Q_SLOTS:
    void cholesky_and_triangular_solves()
    {
        for (const Index n : {1, 17, 65, 257, 1300}) {
            const MatrixD h = random_moments(n, 11);
            for (const bool twice : {false, true}) {
                const auto factor = backend_->cholesky(upload(*backend_, h, precision_of(twice)));
                QVERIFY(factor);
                QCOMPARE(factor->precision(), precision_of(twice));
                const MatrixD c = backend_->download_double(*factor);
                QVERIFY(MatrixD(c.triangularView<Eigen::StrictlyUpper>()).norm() == 0.0);
                QVERIFY(relative_difference(MatrixD(c * c.transpose()), h) < (twice ? 1e-14 : 1e-6));
                for (const bool transposed : {false, true}) {
                    const MatrixD x = rounded(random_matrix(n, 300, 12), precision_of(twice));
                    const MatrixD b = turned(c, flag(transposed)) * x;
                    Buffer solved = upload(*backend_, b, precision_of(twice));
                    backend_->solve_lower(*factor, flag(transposed), solved);
                    QVERIFY(relative_difference(backend_->download_double(solved), x)
                            < (twice ? 1e-12 : 1e-4));
                }
            }
        }
    }

    void cholesky_refuses_what_is_not_positive_definite()
    {
        MatrixD h = random_moments(9, 13);
        h(4, 4) = -1.0;
        auto factor = backend_->cholesky(backend_->upload(h));
        QVERIFY(!factor);
        QVERIFY(factor.error().kind == ErrorKind::BadInput);
        MatrixD large = MatrixD::Identity(1300, 1300); // in blocks: the column is counted from the start
        large(1200, 1200) = -1.0;
        const auto refused = backend_->cholesky(backend_->upload(large));
        QVERIFY(!refused);
        QVERIFY(refused.error().message.find("column 1201") != std::string::npos);
        h(4, 4) = k_nan;
        QVERIFY(!backend_->cholesky(backend_->upload(h)));
        h = random_moments(9, 13);
        h(8, 8) = std::numeric_limits<double>::infinity();
        QVERIFY(!backend_->cholesky(backend_->upload(h)));
    }

    void eigenpairs_data()
    {
        QTest::addColumn<int>("n");
        QTest::addColumn<int>("count");
        for (const auto& [n, count] : {std::pair{1, 1}, {5, 0}, {17, 3}, {65, 65}, {129, 40}, {129, 100}})
            QTest::addRow("%d of %d", count, n) << n << count;
    }
    void eigenpairs()
    {
        QFETCH(int, n);
        QFETCH(int, count);
        MatrixD h = random_moments(n, 14);
        h.diagonal().array() -= 0.8; // indefinite: the largest, not the largest in magnitude, are wanted
        for (const bool twice : {false, true}) {
            const Buffer buffer = upload(*backend_, h, precision_of(twice));
            const MatrixD stored = rounded(h, precision_of(twice));
            const SymmetricEigen eigen = backend_->top_eigen(buffer, count);
            const VectorD all = backend_->symmetric_eigenvalues(buffer);
            QCOMPARE(eigen.values.size(), Index{count});
            QCOMPARE(all.size(), Index{n});
            QCOMPARE(eigen.vectors.precision(), Precision::Float64);
            const MatrixD v = backend_->download_double(eigen.vectors);
            QCOMPARE(v.rows(), Index{n});
            QVERIFY((stored * v - v * eigen.values.asDiagonal()).norm() < 1e-12 * stored.norm());
            QVERIFY((v.transpose() * v - MatrixD::Identity(count, count)).norm() < 1e-12);
            QVERIFY((all.head(count) - eigen.values).norm() < 1e-12 * stored.norm());
            QVERIFY(std::is_sorted(all.data(), all.data() + n, std::greater<>()));
            QVERIFY(std::abs(all.sum() - stored.trace()) < 1e-12 * stored.norm() * n);
        }
    }

    void eigenpairs_of_repeated_values()
    {
        for (const Index count : {1, 4, 10}) {
            for (const double value : {0.0, 1.0}) {
                const auto eigen =
                    backend_->top_eigen(backend_->upload(MatrixD(value * MatrixD::Identity(10, 10))), count);
                const MatrixD v = backend_->download_double(eigen.vectors);
                QVERIFY((v.transpose() * v - MatrixD::Identity(count, count)).norm() < 1e-13);
                QVERIFY((eigen.values.array() - value).abs().maxCoeff() < 1e-15);
            }
        }
    }

    void eigen_of_what_is_not_finite_fails()
    {
        MatrixD h = random_moments(8, 15);
        h(5, 2) = h(2, 5) = k_nan;
        QVERIFY(is_failure([&] { backend_->top_eigen(backend_->upload(h), 2); }));
        QVERIFY(is_failure([&] { backend_->symmetric_eigenvalues(backend_->upload(h)); }));
        QVERIFY(is_failure([&] { backend_->singular_values(backend_->upload(h)); }));
    }

    void singular_values()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {65, 12}}) {
            // U·diag(s)·Vᵀ with known s.
            const Index side = std::min(rows, cols);
            Buffer u = backend_->upload(random_matrix(rows, side, 16));
            Buffer v = backend_->upload(random_matrix(cols, side, 17));
            backend_->orthonormalize(u);
            backend_->orthonormalize(v);
            VectorD s(side);
            for (Index i = 0; i < side; ++i)
                s[i] = std::pow(0.7, static_cast<double>(i));
            backend_->scale_columns(u, s);
            const MatrixD a =
                backend_->download_double(backend_->multiply(u, Transpose::No, v, Transpose::Yes));
            QVERIFY((backend_->singular_values(backend_->upload(a)) - s).cwiseAbs().maxCoeff() < 1e-14);
            QVERIFY((backend_->singular_values(backend_->upload(Matrix(a.cast<float>()))) - s)
                        .cwiseAbs()
                        .maxCoeff()
                    < 1e-6);
        }
        QCOMPARE(backend_->singular_values(backend_->allocate(0, 5)).size(), Index{0});
    }

    void singular_values_of_a_large_float_matrix()
    {
        // Rank 3 plus noise: the path over the Gram matrix.
        const Index n = 1030;
        const MatrixD a =
            1e-3 * random_matrix(n, n + 2, 18) + random_matrix(n, 3, 19) * random_matrix(3, n + 2, 20);
        const VectorD from_float = backend_->singular_values(backend_->upload(Matrix(a.cast<float>())));
        const VectorD exact = backend_->singular_values(backend_->upload(a));
        QCOMPARE(from_float.size(), n);
        QVERIFY((from_float - exact).cwiseAbs().maxCoeff() < 1e-7 * exact[0]);
        QVERIFY(std::abs(from_float[500] / exact[500] - 1.0) < 1e-4);
    }

    void orthonormal_basis()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {33, 17}, {65, 65}, {300, 5}}) {
            const MatrixD y = random_matrix(rows, cols, 21);
            for (const bool twice : {false, true}) {
                Buffer q = upload(*backend_, y, precision_of(twice));
                backend_->orthonormalize(q);
                const MatrixD basis = backend_->download_double(q);
                const double tolerance = twice ? 1e-13 : 1e-5;
                QVERIFY((basis.transpose() * basis - MatrixD::Identity(cols, cols)).norm() < tolerance);
                QVERIFY((basis * (basis.transpose() * y) - y).norm() < tolerance * y.norm());
            }
        }
        MatrixD dependent = random_matrix(20, 4, 22);
        dependent.col(3) = dependent.col(0);
        Buffer q = backend_->upload(dependent);
        backend_->orthonormalize(q);
        const MatrixD basis = backend_->download_double(q);
        QVERIFY((basis.transpose() * basis - MatrixD::Identity(4, 4)).norm() < 1e-13);
    }
};

QTEST_GUILESS_MAIN(TestCpuFactorizations)
#include "test_cpu_factorizations.moc"
