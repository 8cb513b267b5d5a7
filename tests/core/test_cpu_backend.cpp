// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <cmath>
#include <functional>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();

struct Size {
    Index m, n, k;
};
constexpr Size k_sizes[] = {{1, 1, 1},     {17, 33, 5}, {129, 65, 257},
                            {100, 1, 300}, {1, 300, 7}, {300, 530, 64}};

Transpose flag(bool transposed) { return transposed ? Transpose::Yes : Transpose::No; }
Precision precision_of(bool twice) { return twice ? Precision::Float64 : Precision::Float32; }

Buffer upload(Backend& backend, const MatrixD& matrix, Precision precision)
{
    return precision == Precision::Float64 ? backend.upload(matrix)
                                           : backend.upload(Matrix(matrix.cast<float>()));
}

/// What the buffer of that precision holds: the reference must start from the same numbers.
MatrixD rounded(const MatrixD& matrix, Precision precision)
{
    return precision == Precision::Float64 ? matrix : MatrixD(matrix.cast<float>().cast<double>());
}

MatrixD turned(const MatrixD& matrix, Transpose transpose)
{
    return transpose == Transpose::Yes ? MatrixD(matrix.transpose()) : matrix;
}

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

bool is_failure(const std::function<void()>& body)
{
    try {
        body();
    } catch (const BackendFailure& failure) {
        return !failure.error().message.empty();
    }
    return false;
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }

/// Attention written down from its definition.
MatrixD plain_attention(const MatrixD& q, const MatrixD& k, const MatrixD& v, const AttentionShape& shape)
{
    MatrixD out = MatrixD::Zero(q.rows(), q.cols());
    for (Index row = 0; row < q.rows(); ++row) {
        const Index position = row % shape.sequence_length;
        const Index start = row - position;
        const Index first = shape.window > 0 ? std::max<Index>(0, position - shape.window + 1) : 0;
        for (Index head = 0; head < shape.heads; ++head) {
            const Index kv = head / (shape.heads / shape.kv_heads) * shape.head_dim;
            const Index own = head * shape.head_dim;
            VectorD weights(position - first + 1);
            for (Index j = first; j <= position; ++j)
                weights[j - first] = shape.scale
                                     * q.row(row)
                                           .segment(own, shape.head_dim)
                                           .dot(k.row(start + j).segment(kv, shape.head_dim));
            if (shape.score_cap > 0.0)
                weights = shape.score_cap * (weights / shape.score_cap).array().tanh();
            weights = weights.array().exp();
            weights /= weights.sum();
            for (Index j = first; j <= position; ++j)
                out.row(row).segment(own, shape.head_dim) +=
                    weights[j - first] * v.row(start + j).segment(kv, shape.head_dim);
        }
    }
    return out;
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

    void rms_norm_bias_and_gate()
    {
        for (const bool twice : {false, true}) {
            const Precision precision = precision_of(twice);
            const double tolerance = twice ? 1e-13 : 1e-6;
            for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {129, 257}}) {
                const MatrixD x = rounded(random_matrix(rows, cols, 23), precision);
                const MatrixD gain = rounded(random_matrix(1, cols, 24), precision);
                const MatrixD up = rounded(random_matrix(rows, cols, 25), precision);
                MatrixD expected = x;
                for (Index i = 0; i < rows; ++i) {
                    const double mean = x.row(i).squaredNorm() / static_cast<double>(cols);
                    expected.row(i) = (x.row(i) / std::sqrt(mean + 1e-5)).cwiseProduct(gain);
                }
                Buffer dx = upload(*backend_, x, precision);
                const Buffer norm = backend_->rms_norm(dx, upload(*backend_, gain, precision), 1e-5);
                QVERIFY(relative_difference(backend_->download_double(norm), expected) < tolerance);
                backend_->add_bias(dx, upload(*backend_, gain, precision));
                const MatrixD biased = x.rowwise() + gain.row(0);
                QVERIFY(relative_difference(backend_->download_double(dx), biased) < tolerance);
                Buffer gate = upload(*backend_, MatrixD(20.0 * x), precision);
                backend_->silu_multiply(gate, upload(*backend_, up, precision));
                const MatrixD gated = rounded(20.0 * x, precision).unaryExpr(&silu).cwiseProduct(up);
                QVERIFY(relative_difference(backend_->download_double(gate), gated) < tolerance);
            }
        }
    }

    void silu_at_the_ends_of_float()
    {
        Matrix gate(1, 8);
        gate << -1e30F, -200.0F, -88.0F, -87.0F, 0.0F, 88.0F, 200.0F, 1e30F;
        Buffer g = backend_->upload(gate);
        backend_->silu_multiply(g, backend_->upload(Matrix(Matrix::Ones(1, 8))));
        const Matrix result = backend_->download(g);
        QVERIFY(result.allFinite());
        for (Index i = 0; i < 8; ++i)
            QVERIFY(std::abs(static_cast<double>(result(0, i)) - silu(static_cast<double>(gate(0, i))))
                    <= 1e-6 * std::max(1.0, std::abs(static_cast<double>(result(0, i)))));
        g = backend_->upload(Matrix(Matrix::Constant(1, 1, std::numeric_limits<float>::quiet_NaN())));
        backend_->silu_multiply(g, backend_->upload(Matrix(Matrix::Ones(1, 1))));
        QVERIFY(std::isnan(backend_->max_abs(g)));
    }

    void rms_norm_of_each_head()
    {
        for (const bool twice : {false, true}) {
            const MatrixD x = rounded(random_matrix(19, 35, 40), precision_of(twice));
            const MatrixD gain = rounded(random_matrix(1, 7, 41), precision_of(twice));
            MatrixD expected = x;
            for (Index i = 0; i < x.rows(); ++i) {
                for (Index head = 0; head < 5; ++head) {
                    const auto part = x.row(i).segment(7 * head, 7);
                    expected.row(i).segment(7 * head, 7) =
                        (part / std::sqrt(part.squaredNorm() / 7.0 + 1e-6)).cwiseProduct(gain);
                }
            }
            const Buffer dx = upload(*backend_, x, precision_of(twice));
            const Buffer norm = backend_->rms_norm(dx, upload(*backend_, gain, precision_of(twice)), 1e-6);
            QVERIFY(relative_difference(backend_->download_double(norm), expected) < (twice ? 1e-13 : 1e-6));
            const Buffer wrong = upload(*backend_, MatrixD::Ones(1, 6), precision_of(twice));
            QVERIFY(is_failure([&] { static_cast<void>(backend_->rms_norm(dx, wrong, 1e-6)); }));
        }
    }

    void layer_norm_matches_its_definition()
    {
        for (const bool twice : {false, true}) {
            const Precision precision = precision_of(twice);
            for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {17, 33}, {129, 257}}) {
                // A mean far from 0 must not eat the digits of the rest.
                const MatrixD x =
                    rounded((random_matrix(rows, cols, 42).array() + 100.0).matrix(), precision);
                const MatrixD gain = rounded(random_matrix(1, cols, 43), precision);
                const MatrixD bias = rounded(random_matrix(1, cols, 44), precision);
                MatrixD expected = x;
                for (Index i = 0; i < rows; ++i) {
                    const MatrixD centered = (x.row(i).array() - x.row(i).mean()).matrix();
                    const double variance = centered.squaredNorm() / static_cast<double>(cols);
                    expected.row(i) = (centered / std::sqrt(variance + 1e-5)).cwiseProduct(gain) + bias;
                }
                const Buffer norm =
                    backend_->layer_norm(upload(*backend_, x, precision), upload(*backend_, gain, precision),
                                         upload(*backend_, bias, precision), 1e-5);
                QVERIFY(relative_difference(backend_->download_double(norm), expected)
                        < (twice ? 1e-11 : 1e-6));
            }
        }
        const Buffer x = backend_->upload(Matrix(Matrix::Ones(2, 4)));
        const Buffer narrow = backend_->upload(Matrix(Matrix::Ones(1, 2)));
        const Buffer wide = backend_->upload(Matrix(Matrix::Ones(1, 4)));
        QVERIFY(is_failure([&] { static_cast<void>(backend_->layer_norm(x, narrow, wide, 1e-5)); }));
        QVERIFY(is_failure([&] { static_cast<void>(backend_->layer_norm(x, wide, narrow, 1e-5)); }));
    }

    void activations_match_their_definitions()
    {
        const std::pair<Activation, double (*)(double)> all[] = {
            {Activation::Silu, &silu},
            {Activation::Gelu, [](double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }},
            {Activation::GeluTanh,
             [](double x) {
                 const double slope = std::sqrt(2.0 / std::acos(-1.0));
                 return x / (1.0 + std::exp(-2.0 * slope * (x + 0.044715 * x * x * x)));
             }},
            {Activation::Relu, [](double x) { return std::max(0.0, x); }},
        };
        for (const bool twice : {false, true}) {
            const Precision precision = precision_of(twice);
            const MatrixD x = rounded(4.0 * random_matrix(131, 257, 45), precision);
            const MatrixD up = rounded(random_matrix(131, 257, 46), precision);
            for (const auto& [activation, definition] : all) {
                const double tolerance = twice ? 1e-13 : 1e-6;
                const MatrixD expected = x.unaryExpr(definition);
                Buffer plain = upload(*backend_, x, precision);
                backend_->activate(plain, activation);
                QVERIFY(relative_difference(backend_->download_double(plain), expected) < tolerance);
                Buffer gate = upload(*backend_, x, precision);
                backend_->activate_multiply(gate, upload(*backend_, up, precision), activation);
                QVERIFY(relative_difference(backend_->download_double(gate), expected.cwiseProduct(up))
                        < tolerance);
                Buffer odd = backend_->upload(Matrix(Matrix::Constant(1, 3, std::nanf(""))));
                backend_->activate(odd, activation);
                QVERIFY(std::isnan(backend_->max_abs(odd)));
                Buffer ends = backend_->upload(Matrix(Matrix::Constant(1, 1, -1e6F)));
                backend_->activate(ends, activation);
                QCOMPARE(backend_->max_abs(ends), 0.0);
                const Buffer other = backend_->upload(Matrix(Matrix::Ones(1, 4)));
                QVERIFY(is_failure([&] { backend_->activate_multiply(ends, other, activation); }));
            }
        }
    }

    void soft_cap_bounds()
    {
        const MatrixD x = 40.0 * random_matrix(17, 33, 47);
        Buffer capped = backend_->upload(x);
        backend_->soft_cap(capped, 30.0);
        const MatrixD expected = 30.0 * (x / 30.0).array().tanh();
        QVERIFY(relative_difference(backend_->download_double(capped), expected) < 1e-14);
        QVERIFY(is_failure([&] { backend_->soft_cap(capped, 0.0); }));
    }

    void rope_turns_pairs_by_position()
    {
        const Index length = 7;
        const std::vector<double> frequencies{1.0, 0.25, 0.01};
        const RopeShape shape{3, 10, length, frequencies, 1.25};
        for (const bool twice : {false, true}) {
            const MatrixD x = rounded(random_matrix(2 * length, 30, 26), precision_of(twice));
            MatrixD expected = x;
            for (Index row = 0; row < x.rows(); ++row) {
                for (Index head = 0; head < 3; ++head) {
                    for (Index i = 0; i < 3; ++i) {
                        const double angle =
                            static_cast<double>(row % length) * frequencies[static_cast<std::size_t>(i)];
                        const double a = x(row, head * 10 + i);
                        const double b = x(row, head * 10 + 3 + i);
                        expected(row, head * 10 + i) = 1.25 * (a * std::cos(angle) - b * std::sin(angle));
                        expected(row, head * 10 + 3 + i) = 1.25 * (b * std::cos(angle) + a * std::sin(angle));
                    }
                }
            }
            Buffer turned_buffer = upload(*backend_, x, precision_of(twice));
            backend_->rope(turned_buffer, shape);
            const MatrixD result = backend_->download_double(turned_buffer);
            QVERIFY(relative_difference(result, expected) < (twice ? 1e-14 : 1e-6));
            QVERIFY(result.col(6) == x.col(6)); // beyond the rotary part
        }
    }

    void attention_matches_its_definition_data()
    {
        QTest::addColumn<int>("heads");
        QTest::addColumn<int>("kv_heads");
        QTest::addColumn<int>("length");
        QTest::addColumn<int>("window");
        QTest::newRow("one token") << 1 << 1 << 1 << 0;
        QTest::newRow("multi head") << 4 << 4 << 70 << 0;
        QTest::newRow("grouped") << 6 << 2 << 33 << 0;
        QTest::newRow("single kv") << 3 << 1 << 129 << 0;
        QTest::newRow("window 1") << 2 << 1 << 9 << 1;
        QTest::newRow("window within a tile") << 4 << 2 << 70 << 5;
        QTest::newRow("window across tiles") << 2 << 2 << 200 << 100;
        QTest::newRow("window beyond the text") << 2 << 2 << 20 << 100;
    }
    void attention_matches_its_definition()
    {
        QFETCH(int, heads);
        QFETCH(int, kv_heads);
        QFETCH(int, length);
        QFETCH(int, window);
        const AttentionShape shape{heads, kv_heads, 5, length, 0.7, window};
        for (const bool twice : {false, true}) {
            const Precision precision = precision_of(twice);
            const MatrixD q = rounded(random_matrix(3 * length, 5 * heads, 27), precision);
            const MatrixD k = rounded(random_matrix(3 * length, 5 * kv_heads, 28), precision);
            const MatrixD v = rounded(random_matrix(3 * length, 5 * kv_heads, 29), precision);
            const Buffer out =
                backend_->attention(upload(*backend_, q, precision), upload(*backend_, k, precision),
                                    upload(*backend_, v, precision), shape);
            QVERIFY(relative_difference(backend_->download_double(out), plain_attention(q, k, v, shape))
                    < (twice ? 1e-13 : 2e-6));
            AttentionShape capped = shape;
            capped.score_cap = 0.4; // well within the scores: it must be seen
            const MatrixD bounded = backend_->download_double(
                backend_->attention(upload(*backend_, q, precision), upload(*backend_, k, precision),
                                    upload(*backend_, v, precision), capped));
            QVERIFY(relative_difference(bounded, plain_attention(q, k, v, capped)) < (twice ? 1e-13 : 2e-6));
        }
    }

    void cross_entropy_matches_float64()
    {
        for (const bool twice : {false, true}) {
            const MatrixD logits = rounded(30.0 * random_matrix(19, 333, 30), precision_of(twice));
            std::vector<Index> targets(19);
            for (std::size_t i = 0; i < targets.size(); ++i)
                targets[i] = static_cast<Index>(i * 17 % 333);
            const VectorD losses =
                backend_->cross_entropy(upload(*backend_, logits, precision_of(twice)), targets);
            for (Index i = 0; i < 19; ++i) {
                const double most = logits.row(i).maxCoeff();
                const double expected = std::log((logits.row(i).array() - most).exp().sum()) + most
                                        - logits(i, targets[static_cast<std::size_t>(i)]);
                QVERIFY(std::abs(losses[i] - expected) < 1e-12 * std::max(1.0, expected));
            }
        }
        const std::vector<Index> target{0};
        Matrix bad = Matrix::Zero(1, 5);
        bad(0, 3) = std::numeric_limits<float>::quiet_NaN();
        QVERIFY(std::isnan(backend_->cross_entropy(backend_->upload(bad), target)[0]));
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
