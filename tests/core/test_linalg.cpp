// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "core/compute/hadamard_matrix.h"
#include "core/linalg/weighted_low_rank.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

/// tr(E·H·Eᵀ), written down.
double plain_objective(const MatrixD& e, const MatrixD& h)
{
    double sum = 0.0;
    for (Index i = 0; i < e.rows(); ++i)
        sum += e.row(i) * h * e.row(i).transpose();
    return sum;
}

/// Moments of `rank` independent directions only.
MatrixD singular_moments(Index n, Index rank, std::uint64_t seed)
{
    const MatrixD x = random_matrix(n, rank, seed, "directions");
    return x * x.transpose() / static_cast<double>(rank);
}

/// T_n as a matrix, from the definition: B_p ⊗ Sylvester.
MatrixD plain_transform(Index n)
{
    const auto factor = hadamard_factor(n);
    const Index q = n / factor->order;
    MatrixD t(n, n);
    for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < n; ++j) {
            const bool odd =
                __builtin_popcountll(static_cast<unsigned long long>((i % q) & (j % q))) % 2 != 0;
            t(i, j) = factor->matrix(i / q, j / q) * (odd ? -1.0 : 1.0) / std::sqrt(static_cast<double>(q));
        }
    }
    return t;
}

} // namespace

class TestLinalg : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    MatrixD product(const LowRankBuffers& factors)
    {
        return backend_->download_double(
            backend_->multiply(backend_->convert(factors.left, Precision::Float64),
                               backend_->convert(factors.right, Precision::Float64)));
    }

private Q_SLOTS:
    void low_rank_is_optimal_data()
    {
        QTest::addColumn<int>("rows");
        QTest::addColumn<int>("cols");
        QTest::addColumn<int>("rank");
        QTest::addColumn<int>("kind"); // 0 identity, 1 positive definite, 2 singular
        for (const auto& [rows, cols, rank] :
             {std::tuple{1, 1, 1}, {17, 33, 5}, {33, 17, 5}, {40, 40, 11}, {20, 7, 1}, {7, 20, 6}}) {
            for (int kind = 0; kind < 3; ++kind)
                QTest::addRow("%dx%d r%d kind %d", rows, cols, rank, kind) << rows << cols << rank << kind;
        }
    }
    void low_rank_is_optimal()
    {
        QFETCH(int, rows);
        QFETCH(int, cols);
        QFETCH(int, rank);
        QFETCH(int, kind);
        const Matrix a = random_floats(rows, cols, 50);
        const MatrixD wide = a.cast<double>();
        const MatrixD h = kind == 0   ? MatrixD(MatrixD::Identity(cols, cols))
                          : kind == 1 ? random_moments(cols, 51)
                                      : singular_moments(cols, (cols + 1) / 2, 52);
        const Buffer hessian = kind == 0 ? Buffer() : backend_->upload(h);
        const Buffer da = backend_->upload(a);
        const LowRankBuffers factors = weighted_low_rank(da, hessian, rank, *backend_);
        QCOMPARE(factors.left.rows(), Index{rows});
        QCOMPARE(factors.left.cols(), Index{rank});
        QCOMPARE(factors.right.cols(), Index{cols});
        const MatrixD best = product(factors);
        const double total = plain_objective(wide, h);
        const double least = plain_objective(wide - best, h);
        // The tail of the spectrum is the error, at every rank.
        const VectorD spectrum = weighted_spectrum(da, hessian, *backend_);
        QCOMPARE(spectrum.size(), Index{std::min(rows, cols)});
        QVERIFY(std::is_sorted(spectrum.data(), spectrum.data() + spectrum.size(), std::greater<>()));
        QVERIFY(std::abs(spectrum.sum() - total) < 1e-12 * total);
        QVERIFY(std::abs(spectrum.tail(spectrum.size() - rank).sum() - factors.tail) < 1e-12 * total);
        QVERIFY(std::abs(least - factors.tail) < 2e-7 * total);
        // Nothing of the same rank nearby does better.
        const MatrixD left = backend_->download_double(factors.left);
        const MatrixD right = backend_->download_double(factors.right);
        for (std::uint64_t trial = 0; trial < 40; ++trial) {
            const double size = std::pow(10.0, -1.0 - static_cast<double>(trial % 3));
            const MatrixD other = (left + size * random_matrix(rows, rank, 53 + trial))
                                  * (right + size * random_matrix(rank, cols, 153 + trial));
            QVERIFY(plain_objective(wide - other, h) >= least - 1e-6 * total);
        }
    }

    void ranks_at_the_ends()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{9, 14}, {14, 9}, {9, 9}}) {
            const Matrix a = random_floats(rows, cols, 54);
            const Buffer da = backend_->upload(a);
            const MatrixD h = random_moments(cols, 55);
            for (const bool weighted : {false, true}) {
                const Buffer hessian = weighted ? backend_->upload(h) : Buffer();
                const LowRankBuffers none = weighted_low_rank(da, hessian, 0, *backend_);
                QCOMPARE(none.left.cols(), Index{0});
                QCOMPARE(none.right.rows(), Index{0});
                QCOMPARE(none.right.cols(), cols);
                const double total = weighted_squared_norm(da, hessian, *backend_);
                QVERIFY(std::abs(none.tail - total) < 1e-12 * total);
                for (const Index rank : {std::min(rows, cols), Index{1000}}) {
                    const LowRankBuffers all = weighted_low_rank(da, hessian, rank, *backend_);
                    QCOMPARE(all.left.cols(), std::min(rows, cols));
                    QVERIFY(relative_difference(product(all), a) < 1e-6);
                    QVERIFY(all.tail >= 0.0 && all.tail < 1e-12 * total);
                }
            }
        }
        QCOMPARE(
            weighted_low_rank(backend_->upload(random_floats(4, 4, 1)), Buffer(), -3, *backend_).left.cols(),
            Index{0});
    }

    void zero_matrix_and_zero_hessian()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{5, 8}, {8, 5}}) {
            const Buffer zero = backend_->allocate(rows, cols);
            const LowRankBuffers of_zero =
                weighted_low_rank(zero, backend_->upload(random_moments(cols, 56)), 2, *backend_);
            QCOMPARE(product(of_zero).norm(), 0.0);
            const LowRankBuffers unweighted =
                weighted_low_rank(backend_->upload(random_floats(rows, cols, 57)),
                                  backend_->allocate(cols, cols, Precision::Float64), 2, *backend_);
            QVERIFY(product(unweighted).allFinite());
            QCOMPARE(unweighted.tail, 0.0);
        }
    }

    void a_low_rank_matrix_is_found_exactly()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{60, 30}, {30, 60}}) {
            const MatrixD a = random_matrix(rows, 3, 58) * random_matrix(3, cols, 59);
            const LowRankBuffers factors =
                weighted_low_rank(backend_->upload(Matrix(a.cast<float>())),
                                  backend_->upload(random_moments(cols, 60)), 3, *backend_);
            QVERIFY(relative_difference(product(factors), a) < 1e-6);
            // More rank than there is: the rest must not hurt.
            const LowRankBuffers wider =
                weighted_low_rank(backend_->upload(Matrix(a.cast<float>())),
                                  backend_->upload(random_moments(cols, 60)), 10, *backend_);
            QVERIFY(relative_difference(product(wider), a) < 1e-6);
        }
    }

    void weighted_norm_matches_its_definition()
    {
        for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {129, 65}}) {
            const Matrix e = random_floats(rows, cols, 61);
            const MatrixD h = random_moments(cols, 62);
            const double expected = plain_objective(e.cast<double>(), h);
            QVERIFY(std::abs(weighted_squared_norm(backend_->upload(e), backend_->upload(h), *backend_)
                             - expected)
                    < 1e-12 * expected);
            const double plain = e.cast<double>().squaredNorm();
            QVERIFY(std::abs(weighted_squared_norm(backend_->upload(e), Buffer(), *backend_) - plain)
                    < 1e-12 * plain);
        }
    }

    void balance_keeps_the_product()
    {
        Matrix left = random_floats(13, 5, 63);
        Matrix right = random_floats(5, 21, 64);
        left.col(1) *= 1e4F;
        right.row(2) *= 1e-5F;
        left.col(3).setZero();
        const MatrixD before = left.cast<double>() * right.cast<double>();
        balance(left, right);
        QVERIFY(relative_difference(MatrixD(left.cast<double>() * right.cast<double>()), before) < 1e-6);
        for (const Index i : {0, 1, 2, 4})
            QVERIFY(std::abs(left.col(i).norm() / right.row(i).norm() - 1.0F) < 1e-5F);
        QVERIFY(left.allFinite() && right.allFinite());
    }

    void hadamard_data()
    {
        QTest::addColumn<int>("n");
        QTest::addColumn<int>("order");
        for (const auto& [n, order] : {std::pair{1, 1},
                                       {2, 1},
                                       {12, 12},
                                       {20, 20},
                                       {28, 28},
                                       {36, 36},
                                       {43, 43},
                                       {64, 1},
                                       {96, 12},
                                       {172, 43},
                                       {208, 104},
                                       {576, 36},
                                       {9, 9},
                                       {14, 7},
                                       {6, 3}})
            QTest::addRow("%d", n) << n << order;
    }
    void hadamard()
    {
        QFETCH(int, n);
        QFETCH(int, order);
        QCOMPARE(hadamard_factor(n)->order, Index{order});
        const MatrixD t = plain_transform(n);
        QVERIFY((t * t.transpose() - MatrixD::Identity(n, n)).norm() < 1e-12 * n);
        // Paley matrices have entries of one size only, Hartley's stay below √(2/K).
        const double largest = std::sqrt(2.0 / order) * std::sqrt(static_cast<double>(order) / n);
        QVERIFY(t.cwiseAbs().maxCoeff() <= largest + 1e-12);
        if (order % 4 == 0 || order == 1)
            QVERIFY((t.cwiseAbs().array() - 1.0 / std::sqrt(static_cast<double>(n))).abs().maxCoeff()
                    < 1e-12);
        for (const Index rows : {Index{1}, Index{7}, Index{200}}) {
            const MatrixD x = random_matrix(rows, n, 65);
            Buffer forward = backend_->upload(x);
            backend_->hadamard(forward, Transpose::No);
            QVERIFY(relative_difference(backend_->download_double(forward), MatrixD(x * t.transpose()))
                    < 1e-13);
            backend_->hadamard(forward, Transpose::Yes);
            QVERIFY(relative_difference(backend_->download_double(forward), x) < 1e-13);
            Buffer backward = backend_->upload(Matrix(x.cast<float>()));
            backend_->hadamard(backward, Transpose::Yes);
            QVERIFY(relative_difference(backend_->download_double(backward), MatrixD(x * t)) < 1e-6);
        }
    }

    void hadamard_orders_of_known_models()
    {
        // methods-joint §3.2, the table
        for (const auto& [n, order] : {std::pair<Index, Index>{5120, 20},
                                       {13824, 108},
                                       {11008, 43},
                                       {14336, 28},
                                       {28672, 28},
                                       {896, 28},
                                       {3072, 12},
                                       {1536, 12},
                                       {5632, 44},
                                       {4864, 76},
                                       {352, 44},
                                       {4096, 1}}) {
            const auto factor = hadamard_factor(n);
            QCOMPARE(factor->order, order);
            QVERIFY((factor->matrix * factor->matrix.transpose() - MatrixD::Identity(order, order)).norm()
                    < 1e-11);
        }
    }

    void hadamard_factor_from_many_threads()
    {
        std::vector<std::shared_ptr<const HadamardFactor>> factors(64);
        parallel_for(0, 64, [&](std::int64_t i) {
            factors[static_cast<std::size_t>(i)] = hadamard_factor(4 * (1 + i % 4) * 83);
        });
        for (std::size_t i = 4; i < factors.size(); ++i)
            QCOMPARE(factors[i].get(), factors[i - 4].get());
    }
};

QTEST_GUILESS_MAIN(TestLinalg)
#include "test_linalg.moc"
