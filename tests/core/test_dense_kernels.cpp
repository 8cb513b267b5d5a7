// SPDX-License-Identifier: GPL-3.0-or-later
// The inner loops of products on every instruction set of this CPU, prepared weights, bfloat16 factors.
#include "core/base/thread_pool.h"
#include "core/compute/backend.h"
#include "core/compute/detail/micro_kernel.h"
#include "core/compute/detail/panels.h"
#include "core/tensor/half.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::detail;
using namespace rankscope::test;

namespace {

constexpr float k_nan = std::numeric_limits<float>::quiet_NaN();

Matrix rounded_to_bfloat(const Matrix& x)
{
    return x.unaryExpr([](float value) { return bfloat16_to_float(float_to_bfloat16(value)); });
}

/// Runs one tile and compares it with plain sums; c is longer than the tile on all sides.
template <class T>
bool tile_is_right(void (*kernel)(const ProductTile<T>&), const ProductTile<T>& shape, bool turned)
{
    const Index k = shape.steps;
    const MatrixD a = random_matrix(shape.rows, k, 1).template cast<T>().template cast<double>();
    const MatrixD b = random_matrix(k, k_panel_cols, 2).template cast<T>().template cast<double>();
    const MatrixD start =
        random_matrix(shape.rows + 1, shape.cols + 5, 3).template cast<T>().template cast<double>();
    using Owned = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Owned left = turned ? Owned(a.transpose().cast<T>()) : Owned(a.cast<T>());
    const Owned right = b.cast<T>();
    Owned c = start.cast<T>();
    if (shape.beta == T(0))
        c.topLeftCorner(shape.rows, shape.cols).setConstant(std::numeric_limits<T>::quiet_NaN());
    ProductTile<T> tile = shape;
    tile.a = left.data();
    tile.a_row = turned ? 1 : k;
    tile.a_step = turned ? shape.rows : 1;
    tile.b = right.data();
    tile.b_step = k_panel_cols;
    tile.c = c.data();
    tile.c_row = c.cols();
    kernel(tile);
    MatrixD expected = start;
    const MatrixD product = static_cast<double>(shape.alpha) * a * b.leftCols(shape.cols);
    auto part = expected.topLeftCorner(shape.rows, shape.cols);
    part = shape.beta == T(0) ? product : MatrixD(product + static_cast<double>(shape.beta) * part);
    return relative_difference(c, expected) < (sizeof(T) == 4 ? 1e-6 : 1e-14);
}

} // namespace

class TestDenseKernels : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private Q_SLOTS:
    void cleanup() { set_thread_count(2); }

    void tiles_of_every_size_data()
    {
        QTest::addColumn<int>("set");
        int set = 0;
        for (const MicroKernels* kernels : micro_kernels())
            QTest::newRow(kernels->name) << set++;
    }
    void tiles_of_every_size()
    {
        QFETCH(int, set);
        const MicroKernels& kernels = *micro_kernels()[static_cast<std::size_t>(set)];
        for (Index rows = 1; rows <= k_tile_rows; ++rows) {
            for (Index cols = k_vector_cols; cols <= k_panel_cols; cols += k_vector_cols) {
                for (const Index steps : {1, 7, 64}) {
                    for (const int beta : {0, 1, -2}) {
                        FloatTile tile;
                        tile.rows = rows;
                        tile.cols = cols;
                        tile.steps = steps;
                        tile.alpha = 1.5F;
                        tile.beta = static_cast<float>(beta);
                        DoubleTile twice;
                        twice.rows = rows;
                        twice.cols = cols;
                        twice.steps = steps;
                        twice.beta = beta;
                        for (const bool turned : {false, true}) {
                            QVERIFY(tile_is_right(kernels.floats, tile, turned));
                            QVERIFY(tile_is_right(kernels.doubles, twice, turned));
                        }
                    }
                }
            }
        }
    }

    void prepared_weights_multiply_like_plain_ones_data()
    {
        QTest::addColumn<int>("m");
        QTest::addColumn<int>("n");
        QTest::addColumn<int>("k");
        for (const auto& [m, n, k] : {std::array{1, 1, 1},
                                      {3, 47, 5},
                                      {9, 48, 64},
                                      {8, 49, 65},
                                      {300, 97, 769},
                                      {257, 300, 33},
                                      {2, 130, 1600}})
            QTest::addRow("%d %d %d", m, n, k) << m << n << k;
    }
    void prepared_weights_multiply_like_plain_ones()
    {
        QFETCH(int, m);
        QFETCH(int, n);
        QFETCH(int, k);
        const Matrix x = random_floats(m, k, 4);
        const Matrix w = random_floats(n, k, 5);
        const Matrix start = random_floats(m, n, 6);
        const Buffer weight = backend_->prepare_weight(backend_->upload(w));
        QCOMPARE(weight.rows(), Index{n});
        QCOMPARE(weight.cols(), Index{k});
        const Buffer decoded = backend_->prepare_weight(
            n, k, [&w](Index row, float* values) { std::copy_n(w.row(row).data(), w.cols(), values); });
        const Buffer input = backend_->upload(x);
        const MatrixD product = x.cast<double>() * w.cast<double>().transpose();
        const Matrix result =
            backend_->download(backend_->multiply(input, Transpose::No, weight, Transpose::Yes));
        QVERIFY(relative_difference(result, product) < 1e-6);
        QVERIFY(same_bytes(
            result, backend_->download(backend_->multiply(input, Transpose::No, decoded, Transpose::Yes))));
        Buffer sum = backend_->upload(start);
        backend_->gemm(-2.0, input, Transpose::No, weight, Transpose::Yes, 0.5, sum);
        QVERIFY(
            relative_difference(backend_->download(sum), MatrixD(-2.0 * product + 0.5 * start.cast<double>()))
            < 1e-6);
        // A row's result does not depend on the rows beside it.
        const Buffer last = backend_->rows_of(input, m - 1, 1);
        QVERIFY(
            same_bytes(backend_->download(backend_->multiply(last, Transpose::No, weight, Transpose::Yes)),
                       Matrix(result.bottomRows(1))));
    }

    void prepared_weights_serve_nothing_else()
    {
        const Buffer weight = backend_->prepare_weight(backend_->upload(random_floats(5, 5, 7)));
        const Buffer x = backend_->upload(random_floats(5, 5, 8));
        const auto fails = [](const auto& body) {
            try {
                body();
            } catch (const BackendFailure& failure) {
                return !failure.error().message.empty();
            }
            return false;
        };
        QVERIFY(fails([&] { backend_->multiply(x, Transpose::No, weight, Transpose::No); }));
        QVERIFY(fails([&] { backend_->multiply(x, Transpose::Yes, weight, Transpose::Yes); }));
        QVERIFY(fails([&] { backend_->multiply(weight, Transpose::No, x, Transpose::Yes); }));
        QVERIFY(fails([&] { backend_->download(weight); }));
        QVERIFY(backend_->prepare_weight(weight).storage() == weight.storage());
        QVERIFY(backend_->prepare_weight(backend_->allocate(0, 4)).empty());
    }

    void not_a_number_reaches_its_row_and_column_only()
    {
        Matrix x = random_floats(9, 20, 9);
        x(3, 4) = k_nan;
        const Buffer weight = backend_->prepare_weight(backend_->upload(random_floats(50, 20, 10)));
        const Matrix y = backend_->download(
            backend_->multiply(backend_->upload(x), Transpose::No, weight, Transpose::Yes));
        for (Index i = 0; i < 9; ++i)
            QCOMPARE(y.row(i).hasNaN(), i == 3);
        Buffer h = backend_->allocate(20, 20, Precision::Float64);
        backend_->gram(1.0, backend_->upload(x), Transpose::Yes, 0.0, h);
        const MatrixD moments = backend_->download_double(h);
        for (Index i = 0; i < 20; ++i) {
            for (Index j = 0; j < 20; ++j)
                QCOMPARE(std::isnan(moments(i, j)), i == 4 || j == 4);
        }
    }

    void moments_of_two_halves_add_up()
    {
        const Matrix x = random_floats(700, 100, 11);
        Buffer whole = backend_->allocate(100, 100, Precision::Float64);
        Buffer halves = backend_->allocate(100, 100, Precision::Float64);
        backend_->gram(1.0, backend_->upload(x), Transpose::Yes, 1.0, whole);
        backend_->gram(1.0, backend_->upload(x.topRows(256)), Transpose::Yes, 1.0, halves);
        backend_->gram(1.0, backend_->upload(x.bottomRows(444)), Transpose::Yes, 1.0, halves);
        // Cut where blocks of terms end, the very same float32 sums are added.
        QVERIFY(relative_difference(backend_->download_double(whole), backend_->download_double(halves))
                < 1e-15);
    }

    void attention_over_many_tiles_data()
    {
        QTest::addColumn<int>("length");
        QTest::addColumn<int>("window");
        QTest::newRow("long") << 700 << 0;
        QTest::newRow("window ends inside key tiles") << 517 << 37;
        QTest::newRow("window of a key tile") << 400 << 128;
    }
    void attention_over_many_tiles()
    {
        QFETCH(int, length);
        QFETCH(int, window);
        const AttentionShape shape{2, 1, 19, length, 0.4, window};
        const Matrix q = random_floats(length, 38, 12);
        const Matrix k = random_floats(length, 19, 13);
        const Matrix v = random_floats(length, 19, 14);
        const Matrix single = backend_->download(
            backend_->attention(backend_->upload(q), backend_->upload(k), backend_->upload(v), shape));
        for (Index head = 0; head < 2; ++head) {
            MatrixD scores = 0.4 * q.middleCols(19 * head, 19).cast<double>() * k.cast<double>().transpose();
            for (Index i = 0; i < length; ++i) {
                const Index first = window > 0 ? std::max<Index>(0, i - window + 1) : 0;
                const VectorD weights =
                    scores.row(i).segment(first, i + 1 - first).array().exp().matrix().transpose();
                const Eigen::RowVectorXd expected =
                    weights.transpose() * v.middleRows(first, i + 1 - first).cast<double>() / weights.sum();
                const Eigen::RowVectorXd got = single.row(i).segment(19 * head, 19).cast<double>();
                QVERIFY((got - expected).norm() < 3e-6 * std::max(1.0, expected.norm()));
            }
        }
    }

    void attention_bears_large_scores()
    {
        // Scores around ±1e4, whose exponentials no number holds, growing along the keys.
        const Index length = 300;
        Matrix k(length, 1);
        for (Index i = 0; i < length; ++i)
            k(i, 0) = static_cast<float>(i);
        const Matrix q = Matrix::Constant(length, 1, 100.0F);
        const Buffer keys = backend_->upload(k);
        const Matrix out =
            backend_->download(backend_->attention(backend_->upload(q), keys, keys, {1, 1, 1, length, 1.0}));
        for (Index i = 0; i < length; ++i)
            QCOMPARE(out(i, 0), static_cast<float>(i)); // the newest key takes it all
    }

    void bfloat_products_are_those_of_rounded_factors()
    {
        auto made = make_bfloat_cpu_backend();
        if (!made) {
            QCOMPARE(made.error().kind, ErrorKind::Usage);
            QVERIFY(micro_kernel().bfloats == nullptr);
            QSKIP("this CPU has no bfloat16 products");
        }
        Backend& bfloat = **made;
        QCOMPARE(bfloat.id(), std::string("cpu:bf16"));
        for (const auto& [m, n, k] : {std::array<Index, 3>{1, 1, 1}, {9, 50, 33}, {300, 97, 770}}) {
            const Matrix x = random_floats(m, k, 15);
            const Matrix w = random_floats(n, k, 16);
            const Buffer weight = bfloat.prepare_weight(bfloat.upload(w));
            const Matrix y =
                bfloat.download(bfloat.multiply(bfloat.upload(x), Transpose::No, weight, Transpose::Yes));
            const MatrixD expected =
                rounded_to_bfloat(x).cast<double>() * rounded_to_bfloat(w).cast<double>().transpose();
            QVERIFY(relative_difference(y, expected) < 1e-6);
            for (const Transpose transpose : {Transpose::No, Transpose::Yes}) {
                const Matrix turned = transpose == Transpose::No ? x : Matrix(x.transpose());
                Buffer h = bfloat.allocate(m, m, Precision::Float64);
                bfloat.gram(2.0, bfloat.upload(turned), transpose, 0.0, h);
                const MatrixD plain = rounded_to_bfloat(x).cast<double>();
                const MatrixD got = bfloat.download_double(h);
                QVERIFY(got == got.transpose());
                QVERIFY(relative_difference(got, MatrixD(2.0 * plain * plain.transpose())) < 1e-6);
            }
        }
        // Everything else is float32 as before.
        const Buffer a = backend_->upload(random_floats(40, 30, 17));
        QVERIFY(same_bytes(backend_->download(backend_->multiply(a, Transpose::No, a, Transpose::Yes)),
                           bfloat.download(bfloat.multiply(a, Transpose::No, a, Transpose::Yes))));
    }

    void rounding_to_pairs_is_that_of_single_numbers()
    {
        const float numbers[] = {0.0F,
                                 -0.0F,
                                 1.0F,
                                 1.00390625F,
                                 1.01171875F,
                                 3e38F,
                                 std::numeric_limits<float>::infinity(),
                                 k_nan,
                                 1e-40F,
                                 -7.3F,
                                 std::bit_cast<float>(0x7F800001U)};
        constexpr Index count = std::size(numbers);
        BfloatPair pairs[pairs_of(count)];
        to_bfloat_pairs(numbers, count, pairs);
        for (Index i = 0; i < count; ++i) {
            const auto pair = static_cast<std::uint32_t>(pairs[i / 2]);
            const auto bits = static_cast<std::uint16_t>(i % 2 == 0 ? pair & 0xFFFFU : pair >> 16);
            if (std::isnan(numbers[i]))
                QVERIFY(std::isnan(bfloat16_to_float(bits)));
            else
                QCOMPARE(bits, float_to_bfloat16(numbers[i]));
        }
        QCOMPARE(static_cast<std::uint32_t>(pairs[count / 2]) >> 16, 0U); // the odd one's partner
    }

    void thread_count_does_not_change_bytes()
    {
        const Matrix x = random_floats(530, 300, 18);
        const auto all = [&] {
            std::vector<MatrixD> results;
            const Buffer input = backend_->upload(x);
            const Buffer weight = backend_->prepare_weight(backend_->upload(random_floats(700, 300, 19)));
            results.push_back(
                backend_->download_double(backend_->multiply(input, Transpose::No, weight, Transpose::Yes)));
            Buffer h = backend_->allocate(300, 300, Precision::Float64);
            backend_->gram(1.0, input, Transpose::Yes, 1.0, h);
            results.push_back(backend_->download_double(h));
            return results;
        };
        set_thread_count(1);
        const auto one = all();
        for (const int threads : {2, 5}) {
            set_thread_count(threads);
            const auto more = all();
            for (std::size_t i = 0; i < one.size(); ++i)
                QVERIFY(same_bytes(one[i], more[i]));
        }
    }
};

QTEST_GUILESS_MAIN(TestDenseKernels)
#include "test_dense_kernels.moc"
