// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/support/backend_tests.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <algorithm>
#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

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

class TestCpuForward : public QObject {
    Q_OBJECT
private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private Q_SLOTS:
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
};

QTEST_GUILESS_MAIN(TestCpuForward)
#include "test_cpu_forward.moc"
