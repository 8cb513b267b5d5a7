// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "tests/support/backend_tests.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

struct Size {
    Index m, n, k;
};
constexpr Size k_sizes[] = {{1, 1, 1},     {17, 33, 5}, {129, 65, 257},
                            {100, 1, 300}, {1, 300, 7}, {300, 530, 64}};

MatrixD plain_product(const MatrixD& a, const MatrixD& b)
{
    MatrixD c = MatrixD::Zero(a.rows(), b.cols());
    for (Index i = 0; i < a.rows(); ++i) {
        for (Index k = 0; k < a.cols(); ++k) {
            for (Index j = 0; j < b.cols(); ++j)
                c(i, j) += a(i, k) * b(k, j);
        }
    }
    return c;
}

} // namespace

class TestCpuBackend : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private Q_SLOTS:
    void cleanup() { set_thread_count(2); }

    void names_itself()
    {
        set_thread_count(1);
        QCOMPARE(backend_->name(), std::string("CPU (1 thread)"));
        set_thread_count(2);
        QCOMPARE(backend_->name(), std::string("CPU (2 threads)"));
        QCOMPARE(backend_->id(), std::string("cpu"));
        QVERIFY(backend_->supports(Op::Attention));
    }

    void memory_round_trips()
    {
        const MatrixD original = random_matrix(7, 5, 1);
        for (const bool twice : {false, true}) {
            const Buffer buffer = upload(*backend_, original, precision_of(twice));
            QCOMPARE(buffer.rows(), Index{7});
            QCOMPARE(buffer.cols(), Index{5});
            QVERIFY(same_bytes(backend_->download_double(buffer), rounded(original, precision_of(twice))));
            Buffer second = backend_->copy(buffer);
            backend_->add_scaled(0.0, buffer, 0.0, second);
            QCOMPARE(backend_->max_abs(second), 0.0);
            QVERIFY(backend_->max_abs(buffer) > 0.0); // a copy has memory of its own
            QVERIFY(same_bytes(backend_->download_double(backend_->rows_of(buffer, 2, 3)),
                               MatrixD(rounded(original, precision_of(twice)).middleRows(2, 3))));
            QVERIFY(same_bytes(backend_->download_double(backend_->transposed(buffer)),
                               MatrixD(rounded(original, precision_of(twice)).transpose())));
            const std::vector<Index> picked{4, 0, 4};
            const MatrixD columns = backend_->download_double(backend_->gather_columns(buffer, picked));
            const MatrixD rows = backend_->download_double(backend_->gather_rows(buffer, picked));
            for (Index i = 0; i < 3; ++i) {
                const Index source = picked[static_cast<std::size_t>(i)];
                QVERIFY(columns.col(i) == rounded(original, precision_of(twice)).col(source));
                QVERIFY(rows.row(i) == rounded(original, precision_of(twice)).row(source));
            }
        }
        QCOMPARE(backend_->allocate(0, 4).rows(), Index{0});
        QCOMPARE(backend_->download(backend_->allocate(3, 0)).rows(), Index{3});
        QCOMPARE(backend_->download(backend_->allocate(2, 2)).norm(), 0.0F);
    }

    void broken_contracts_are_failures()
    {
        Buffer a = backend_->allocate(3, 4);
        Buffer b = backend_->allocate(3, 4);
        Buffer square = backend_->allocate(3, 3);
        Buffer square_double = backend_->allocate(3, 3, Precision::Float64);
        const std::vector<Index> outside{9};
        QVERIFY(is_failure([&] { backend_->gemm(1, a, Transpose::No, b, Transpose::No, 0, square); }));
        // Float32 factors may have a float64 product; no other mixture makes sense.
        const Buffer twice = backend_->convert(b, Precision::Float64);
        QVERIFY(is_failure(
            [&] { backend_->gemm(1, a, Transpose::No, twice, Transpose::Yes, 0, square_double); }));
        QVERIFY(
            is_failure([&] { backend_->gemm(1, twice, Transpose::No, twice, Transpose::Yes, 0, square); }));
        QVERIFY(is_failure([&] { backend_->gram(1, a, Transpose::Yes, 0, square); }));
        QVERIFY(is_failure([&] { backend_->rows_of(a, 2, 2); }));
        QVERIFY(is_failure([&] { backend_->gather_columns(a, outside); }));
        QVERIFY(is_failure([&] { backend_->top_eigen(square, 4); }));
        QVERIFY(is_failure([&] { backend_->orthonormalize(a); }));
        QVERIFY(is_failure([&] { backend_->cross_entropy(a, outside); }));
        QVERIFY(is_failure([&] { backend_->dot(a, Buffer(3, 4, Precision::Float32, nullptr)); }));
        QVERIFY(is_failure([&] { backend_->allocate(-1, 4); }));
    }

    void gemm_matches_plain_loops_data()
    {
        QTest::addColumn<int>("size");
        QTest::addColumn<bool>("ta");
        QTest::addColumn<bool>("tb");
        QTest::addColumn<bool>("twice");
        for (int size = 0; size < static_cast<int>(std::size(k_sizes)); ++size) {
            for (int bits = 0; bits < 8; ++bits)
                QTest::addRow("%d %d", size, bits)
                    << size << ((bits & 1) != 0) << ((bits & 2) != 0) << ((bits & 4) != 0);
        }
    }
    void gemm_matches_plain_loops()
    {
        QFETCH(int, size);
        QFETCH(bool, ta);
        QFETCH(bool, tb);
        QFETCH(bool, twice);
        const auto [m, n, k] = k_sizes[size];
        const Precision precision = precision_of(twice);
        const MatrixD a = rounded(ta ? random_matrix(k, m, 1) : random_matrix(m, k, 1), precision);
        const MatrixD b = rounded(tb ? random_matrix(n, k, 2) : random_matrix(k, n, 2), precision);
        const MatrixD c = rounded(random_matrix(m, n, 3), precision);
        const MatrixD product = plain_product(turned(a, flag(ta)), turned(b, flag(tb)));
        const Buffer da = upload(*backend_, a, precision);
        const Buffer db = upload(*backend_, b, precision);
        const double tolerance = twice ? 1e-14 : 1e-6;
        for (const double beta : {0.0, 1.0, -0.5}) {
            const MatrixD start = beta == 0.0 ? MatrixD::Constant(m, n, k_nan) : c;
            const MatrixD expected = -1.5 * product + (beta == 0.0 ? MatrixD::Zero(m, n) : MatrixD(beta * c));
            Buffer out = upload(*backend_, start, precision);
            backend_->gemm(-1.5, da, flag(ta), db, flag(tb), beta, out);
            QVERIFY(relative_difference(backend_->download_double(out), expected) < tolerance);
        }
        QVERIFY(relative_difference(backend_->download_double(backend_->multiply(da, flag(ta), db, flag(tb))),
                                    product)
                < tolerance);
    }

    void products_without_terms_or_rows()
    {
        Buffer c = backend_->upload(Matrix(Matrix::Constant(2, 3, 4.0F)));
        backend_->gemm(1.0, backend_->allocate(2, 0), Transpose::No, backend_->allocate(0, 3), Transpose::No,
                       0.5, c);
        QVERIFY(backend_->download(c) == Matrix(Matrix::Constant(2, 3, 2.0F)));
        Buffer none = backend_->allocate(0, 3);
        backend_->gemm(1.0, backend_->allocate(0, 2), Transpose::No, backend_->allocate(2, 3), Transpose::No,
                       0, none);
        Buffer square =
            backend_->upload(Matrix(Matrix::Constant(2, 2, std::numeric_limits<float>::quiet_NaN())));
        backend_->gram(1.0, backend_->allocate(2, 0), Transpose::No, 0.0, square);
        QCOMPARE(backend_->max_abs(square), 0.0);
    }

    void gram_is_exactly_symmetric_data()
    {
        QTest::addColumn<int>("rows");
        QTest::addColumn<int>("cols");
        for (const auto& [rows, cols] : {std::pair{1, 1}, {5, 33}, {33, 5}, {257, 129}, {300, 700}, {530, 3}})
            QTest::addRow("%dx%d", rows, cols) << rows << cols;
    }
    void gram_is_exactly_symmetric()
    {
        QFETCH(int, rows);
        QFETCH(int, cols);
        for (const bool transposed : {false, true}) {
            for (const int mode : {0, 1, 2}) { // float32, float64, float32 into float64
                const Precision in = precision_of(mode == 1);
                const Precision out = precision_of(mode != 0);
                const MatrixD x = rounded(random_matrix(rows, cols, 4), in);
                const MatrixD t = turned(x, flag(transposed));
                MatrixD start = rounded(random_matrix(t.rows(), t.rows(), 5), out);
                start = MatrixD(start.selfadjointView<Eigen::Lower>());
                const MatrixD product = plain_product(t, t.transpose());
                for (const double beta : {0.0, 0.25}) {
                    Buffer c = upload(
                        *backend_, beta == 0.0 ? MatrixD::Constant(t.rows(), t.rows(), k_nan) : start, out);
                    backend_->gram(2.0, upload(*backend_, x, in), flag(transposed), beta, c);
                    const MatrixD result = backend_->download_double(c);
                    QVERIFY(result == result.transpose());
                    const MatrixD expected = 2.0 * product + (beta == 0.0 ? 0.0 * start : beta * start);
                    QVERIFY(relative_difference(result, expected) < (mode == 1 ? 1e-14 : 1e-6));
                }
            }
        }
    }

    void mixed_gram_keeps_small_terms_beside_large_sums()
    {
        // 2^24 is where float32 stops counting by ones; in blocks the sum goes on.
        const Index terms = 40000;
        Matrix x = Matrix::Constant(1, terms, 1.0F);
        x.leftCols(256).setConstant(1024.0F);
        Buffer c = backend_->allocate(1, 1, Precision::Float64);
        backend_->gram(1.0, backend_->upload(x), Transpose::No, 0.0, c);
        QCOMPARE(backend_->download_double(c)(0, 0), 256.0 * 1048576.0 + static_cast<double>(terms - 256));
    }

    void elementwise_and_reductions()
    {
        for (const bool twice : {false, true}) {
            const Precision precision = precision_of(twice);
            const double tolerance = twice ? 1e-14 : 1e-6;
            for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {129, 1025}}) {
                const MatrixD x = rounded(random_matrix(rows, cols, 6), precision);
                const MatrixD y = rounded(random_matrix(rows, cols, 7), precision);
                const Buffer dx = upload(*backend_, x, precision);
                Buffer dy = upload(*backend_, y, precision);
                QVERIFY(relative_difference(backend_->download_double(backend_->difference(dx, dy)),
                                            MatrixD(x - y))
                        < tolerance);
                const double sum = x.cwiseProduct(y).sum();
                QVERIFY(std::abs(backend_->dot(dx, dy) - sum) <= 1e-13 * x.cwiseProduct(y).cwiseAbs().sum());
                QCOMPARE(backend_->max_abs(dx), x.cwiseAbs().maxCoeff());
                backend_->add_scaled(2.5, dx, -0.5, dy);
                QVERIFY(relative_difference(backend_->download_double(dy), MatrixD(2.5 * x - 0.5 * y))
                        < tolerance);
                const VectorD columns = random_matrix(cols, 1, 8).col(0);
                const VectorD rowwise = random_matrix(rows, 1, 9).col(0);
                Buffer scaled = backend_->copy(dx);
                backend_->scale_columns(scaled, columns);
                backend_->scale_rows(scaled, rowwise);
                const MatrixD expected = rowwise.asDiagonal() * x * columns.asDiagonal();
                QVERIFY(relative_difference(backend_->download_double(scaled), expected) < tolerance);
            }
        }
    }

    void max_abs_reports_what_is_not_finite()
    {
        for (const bool twice : {false, true}) {
            for (const double bad :
                 {k_nan, std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
                MatrixD x = random_matrix(40, 70, 10);
                x(39, 68) = bad;
                QVERIFY(std::isnan(backend_->max_abs(upload(*backend_, x, precision_of(twice)))));
            }
        }
        QCOMPARE(backend_->max_abs(backend_->allocate(0, 0)), 0.0);
    }

    void thread_count_does_not_change_bytes()
    {
        const auto all = [&] {
            std::vector<MatrixD> results;
            const Buffer a = backend_->upload(random_floats(530, 300, 31));
            const Buffer b = backend_->upload(random_floats(300, 700, 32));
            const Buffer twice = backend_->convert(a, Precision::Float64);
            results.push_back(backend_->download_double(backend_->multiply(a, b)));
            Buffer gram = backend_->allocate(530, 530, Precision::Float64);
            backend_->gram(1.0, a, Transpose::No, 0.0, gram);
            results.push_back(backend_->download_double(gram));
            results.push_back(MatrixD::Constant(1, 1, backend_->dot(a, a)));
            Buffer moments = backend_->upload(random_moments(300, 33));
            const auto factor = backend_->cholesky(moments);
            results.push_back(backend_->download_double(*factor));
            Buffer solved = backend_->convert(b, Precision::Float64);
            backend_->solve_lower(*factor, Transpose::No, solved);
            results.push_back(backend_->download_double(solved));
            results.push_back(backend_->download_double(backend_->top_eigen(moments, 20).vectors));
            Buffer turned_rows = backend_->copy(a);
            backend_->hadamard(turned_rows, Transpose::No);
            results.push_back(backend_->download_double(turned_rows));
            UniformGrid shape;
            shape.bits = 3;
            shape.group = 64;
            shape.clip = ClipSearch::Shrink;
            const GridBuffers grid = backend_->fit_grid(a, shape);
            results.push_back(backend_->download_double(grid.scales));
            results.push_back(backend_->download_double(
                backend_->round_with_feedback(a, backend_->upload(random_floats(300, 300, 34)), grid, {})
                    .codes));
            shape.group = -1;
            results.push_back(backend_->download_double(backend_->fit_grid(a, shape).scales));
            const AttentionShape attention{5, 5, 60, 265, 0.1, 0};
            results.push_back(backend_->download_double(backend_->attention(a, a, a, attention)));
            Buffer gate = backend_->copy(a);
            backend_->silu_multiply(gate, a);
            results.push_back(backend_->download_double(gate));
            return results;
        };
        set_thread_count(1);
        const auto one = all();
        for (const int threads : {2, 5}) {
            set_thread_count(threads);
            const auto more = all();
            for (std::size_t i = 0; i < one.size(); ++i)
                QVERIFY2(same_bytes(one[i], more[i]), qPrintable(QString("result %1").arg(i)));
        }
    }
};

QTEST_GUILESS_MAIN(TestCpuBackend)
#include "test_cpu_backend.moc"
