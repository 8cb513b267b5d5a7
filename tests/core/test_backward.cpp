// SPDX-License-Identifier: GPL-3.0-or-later
// Backward passes against finite differences of the forward passes in float64, at sizes that fill no tile,
// and in float32 against float64.
#include "core/compute/backend.h"
#include "tests/support/copying_backend.h"
#include "tests/support/numbers.h"

#include <QtTest>

#include <cmath>
#include <functional>

using namespace rankscope;
using namespace rankscope::test;

namespace {

using Forward = std::function<Buffer(const std::vector<Buffer>&)>;

/// ∂ Σ(forward ⊙ dy) / ∂ inputs[which], by central differences.
MatrixD differences(const Forward& forward, std::vector<MatrixD> inputs, std::size_t which, const MatrixD& dy,
                    Backend& backend)
{
    const auto loss = [&] {
        std::vector<Buffer> buffers;
        for (const MatrixD& input : inputs)
            buffers.push_back(backend.upload(input));
        return backend.download_double(forward(buffers)).cwiseProduct(dy).sum();
    };
    MatrixD gradient(inputs[which].rows(), inputs[which].cols());
    for (Index i = 0; i < gradient.size(); ++i) {
        double& value = inputs[which].data()[i];
        const double start = value;
        const double step = 1e-5 * std::max(1.0, std::abs(start));
        value = start + step;
        const double above = loss();
        value = start - step;
        gradient.data()[i] = (above - loss()) / (2.0 * step);
        value = start;
    }
    return gradient;
}

AttentionShape attention_shape(Index heads, Index kv_heads, Index length, Index window, double cap)
{
    AttentionShape shape;
    shape.heads = heads;
    shape.kv_heads = kv_heads;
    shape.head_dim = 5;
    shape.sequence_length = length;
    shape.scale = 0.4;
    shape.window = window;
    shape.score_cap = cap;
    return shape;
}

} // namespace

class TestBackward : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    /// All gradients against differences (1e-7: what differences hold), in float32 against float64 (1e-5),
    /// and on a device without kernels against the CPU, bit for bit.
    void verify(const Forward& forward,
                const std::function<std::vector<Buffer>(Backend&, const std::vector<Buffer>&, const Buffer&)>&
                    backward,
                const std::vector<MatrixD>& inputs, const MatrixD& dy)
    {
        const auto uploaded = [&](Backend& backend, Precision precision) {
            std::vector<Buffer> buffers;
            for (const MatrixD& input : inputs)
                buffers.push_back(precision == Precision::Float64
                                      ? backend.upload(input)
                                      : backend.upload(Matrix(input.cast<float>())));
            return buffers;
        };
        const auto gradients =
            backward(*backend_, uploaded(*backend_, Precision::Float64), backend_->upload(dy));
        const auto single = backward(*backend_, uploaded(*backend_, Precision::Float32),
                                     backend_->upload(Matrix(dy.cast<float>())));
        CopyingBackend device;
        const auto elsewhere =
            backward(device, uploaded(device, Precision::Float32), device.upload(Matrix(dy.cast<float>())));
        for (std::size_t i = 0; i < gradients.size(); ++i) {
            const MatrixD exact = backend_->download_double(gradients[i]);
            const MatrixD expected = differences(forward, inputs, i, dy, *backend_);
            QVERIFY2(
                relative_difference(exact, expected) < 1e-7,
                qPrintable(QStringLiteral("input %1: %2").arg(i).arg(relative_difference(exact, expected))));
            QVERIFY(relative_difference(backend_->download_double(single[i]), exact) < 1e-5);
            QVERIFY(backend_->download(single[i]) == device.download(elsewhere[i]));
        }
    }

private slots:
    void rms_norm()
    {
        for (const Index width : {7, 21}) { // each of three heads, or the row as one
            const MatrixD x = random_matrix(67, 21, 1, "x");
            const MatrixD gain = random_matrix(1, width, 1, "gain");
            verify([&](const auto& in) { return backend_->rms_norm(in[0], in[1], 1e-5); },
                   [](Backend& backend, const auto& in, const Buffer& dy) {
                       const NormGradient g = backend.rms_norm_backward(in[0], in[1], 1e-5, dy);
                       return std::vector{g.dx, g.dgain};
                   },
                   {x, gain}, random_matrix(67, 21, 1, "dy"));
        }
    }

    void layer_norm()
    {
        const MatrixD x = random_matrix(65, 13, 2, "x").array() + 3.0;
        verify([&](const auto& in) { return backend_->layer_norm(in[0], in[1], in[2], 1e-5); },
               [](Backend& backend, const auto& in, const Buffer& dy) {
                   const NormGradient g = backend.layer_norm_backward(in[0], in[1], 1e-5, dy);
                   return std::vector{g.dx, g.dgain, g.dbias};
               },
               {x, random_matrix(1, 13, 2, "gain"), random_matrix(1, 13, 2, "bias")},
               random_matrix(65, 13, 2, "dy"));
    }

    void bias()
    {
        verify(
            [&](const auto& in) {
                Buffer x = backend_->allocate(70, 9, Precision::Float64);
                backend_->add_bias(x, in[0]);
                return x;
            },
            [](Backend& backend, const auto&, const Buffer& dy) {
                return std::vector{backend.column_sums(dy)};
            },
            {random_matrix(1, 9, 3, "bias")}, random_matrix(70, 9, 3, "dy"));
    }

    void rope()
    {
        const std::vector<double> frequencies{1.0, 0.1, 0.01};
        const RopeShape shape{2, 7, 5, frequencies, 1.3}; // three pairs of seven: one feature passes
        verify(
            [&](const auto& in) {
                Buffer x = backend_->copy(in[0]);
                backend_->rope(x, shape);
                return x;
            },
            [&](Backend& backend, const auto&, const Buffer& dy) {
                Buffer dx = backend.copy(dy);
                backend.rope_backward(dx, shape);
                return std::vector{dx};
            },
            {random_matrix(10, 14, 4, "x")}, random_matrix(10, 14, 4, "dy"));
    }

    void attention_data()
    {
        QTest::addColumn<int>("heads");
        QTest::addColumn<int>("kv_heads");
        QTest::addColumn<int>("length");
        QTest::addColumn<int>("window");
        QTest::addColumn<double>("cap");
        QTest::newRow("each head its own") << 2 << 2 << 9 << 0 << 0.0;
        QTest::newRow("grouped") << 6 << 2 << 7 << 0 << 0.0;
        QTest::newRow("window") << 2 << 1 << 11 << 3 << 0.0;
        QTest::newRow("capped") << 2 << 1 << 6 << 0 << 0.7;
        QTest::newRow("capped window") << 3 << 1 << 9 << 4 << 1.5;
        QTest::newRow("beyond a tile") << 1 << 1 << 67 << 0 << 0.0;
        QTest::newRow("window beyond a tile") << 1 << 1 << 70 << 5 << 0.0;
        QTest::newRow("one token") << 2 << 1 << 1 << 0 << 0.0;
    }
    void attention()
    {
        QFETCH(int, heads);
        QFETCH(int, kv_heads);
        QFETCH(int, length);
        QFETCH(int, window);
        QFETCH(double, cap);
        const AttentionShape shape = attention_shape(heads, kv_heads, length, window, cap);
        const Index tokens = 2 * length;
        const Index keys = kv_heads * shape.head_dim;
        verify([&](const auto& in) { return backend_->attention(in[0], in[1], in[2], shape); },
               [&](Backend& backend, const auto& in, const Buffer& dy) {
                   const AttentionGradient g = backend.attention_backward(in[0], in[1], in[2], dy, shape);
                   // A single token looks at itself alone: no score has a slope.
                   return length == 1 ? std::vector{in[0], in[1], g.dv} : std::vector{g.dq, g.dk, g.dv};
               },
               {length == 1 ? MatrixD::Zero(tokens, heads * shape.head_dim).eval()
                            : random_matrix(tokens, heads * shape.head_dim, 5, "q"),
                length == 1 ? MatrixD::Zero(tokens, keys).eval() : random_matrix(tokens, keys, 5, "k"),
                random_matrix(tokens, keys, 5, "v")},
               random_matrix(tokens, heads * shape.head_dim, 5, "dy"));
    }

    void activations_data()
    {
        QTest::addColumn<int>("activation");
        QTest::newRow("silu") << static_cast<int>(Activation::Silu);
        QTest::newRow("gelu") << static_cast<int>(Activation::Gelu);
        QTest::newRow("gelu by tanh") << static_cast<int>(Activation::GeluTanh);
        QTest::newRow("relu") << static_cast<int>(Activation::Relu);
    }
    void activations()
    {
        QFETCH(int, activation);
        const auto kind = static_cast<Activation>(activation);
        const MatrixD x = 2.0 * random_matrix(11, 13, 6, "x");
        const MatrixD up = random_matrix(11, 13, 6, "up");
        const MatrixD dy = random_matrix(11, 13, 6, "dy");
        verify(
            [&](const auto& in) {
                Buffer y = backend_->copy(in[0]);
                backend_->activate(y, kind);
                return y;
            },
            [&](Backend& backend, const auto& in, const Buffer& slope) {
                Buffer dx = backend.copy(slope);
                backend.activate_backward(in[0], kind, dx);
                return std::vector{dx};
            },
            {x}, dy);
        verify(
            [&](const auto& in) {
                Buffer y = backend_->copy(in[0]);
                backend_->activate_multiply(y, in[1], kind);
                return y;
            },
            [&](Backend& backend, const auto& in, const Buffer& slope) {
                const GateGradient g = backend.activate_multiply_backward(in[0], in[1], kind, slope);
                return std::vector{g.dgate, g.dup};
            },
            {x, up}, dy);
    }

    void adam_is_its_formula()
    {
        const MatrixD start = random_matrix(3, 700, 7, "p");
        for (const Precision precision : {Precision::Float64, Precision::Float32}) {
            Buffer p = backend_->convert(backend_->upload(start), precision);
            Buffer first = backend_->allocate(3, 700, precision);
            Buffer second = backend_->allocate(3, 700, precision);
            MatrixD expected = start;
            MatrixD m = MatrixD::Zero(3, 700);
            MatrixD v = m;
            for (int step = 1; step <= 3; ++step) {
                const MatrixD g = random_matrix(3, 700, static_cast<std::uint64_t>(step), "g");
                AdamStep by;
                by.learning_rate = 0.01 / step;
                by.step = step;
                backend_->adam_step(p, backend_->convert(backend_->upload(g), precision), first, second, by);
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v.array() + 0.001 * g.array().square();
                const MatrixD size = (v / (1.0 - std::pow(0.999, step))).cwiseSqrt().array() + 1e-8;
                expected -= by.learning_rate / (1.0 - std::pow(0.9, step)) * m.cwiseQuotient(size);
            }
            QVERIFY(relative_difference(backend_->download_double(p), expected)
                    < (precision == Precision::Float64 ? 1e-14 : 1e-6));
        }
    }

    void learned_rounding_starts_as_nearest_data()
    {
        QTest::addColumn<int>("group");
        QTest::addColumn<bool>("symmetric");
        QTest::newRow("rows") << 0 << false;
        QTest::newRow("groups with a short last one") << 16 << false;
        QTest::newRow("symmetric") << 8 << true;
    }
    void learned_rounding_starts_as_nearest()
    {
        QFETCH(int, group);
        QFETCH(bool, symmetric);
        UniformGrid grid;
        grid.bits = 3;
        grid.group = group;
        grid.symmetric = symmetric;
        const Buffer w = backend_->upload(Matrix(random_matrix(35, 37, 8, "w").cast<float>()));
        const GridBuffers fitted = backend_->fit_grid(w, grid);
        LearnedGrid learned{grid, fitted.scales, fitted.zeros, {}, {}, {}, {}};
        learned.shift = backend_->allocate(35, grid.groups(37));
        learned.exponent = backend_->allocate(35, 37);
        learned.rows = backend_->allocate(35, 1);
        const RoundedBuffers nearest = backend_->round_nearest(w, fitted);
        QVERIFY(backend_->download(backend_->round_learned(w, learned).values)
                == backend_->download(nearest.values));
    }

    /// Through a rounding that does not move there is no slope to compare with; with steps so fine that
    /// rounding does not matter, v ≈ W/S and Ŵ ≈ s₁·v: then the straight-through gradient is that of
    /// W·exp(−(E + r + c)).
    void learned_rounding_is_straight_through()
    {
        UniformGrid grid;
        grid.bits = 8;
        grid.group = 4;
        const Index rows = 5;
        const Index cols = 10;
        const MatrixD w = random_matrix(rows, cols, 9, "w");
        const MatrixD slope = random_matrix(rows, cols, 9, "slope");
        LearnedGrid learned{grid, {}, {}, {}, {}, {}, {}};
        learned.scales = backend_->upload(MatrixD::Constant(rows, 3, 0.25).eval());
        learned.zeros = backend_->upload(MatrixD::Constant(rows, 3, 4.0).eval()); // clamps below −1
        const MatrixD e = 0.1 * random_matrix(rows, cols, 9, "e");
        const MatrixD shift = 0.1 * random_matrix(rows, 3, 9, "shift");
        const MatrixD r = 0.1 * random_matrix(rows, 1, 9, "r");
        const MatrixD c = 0.1 * random_matrix(1, cols, 9, "c");
        learned.shift = backend_->upload(shift);
        learned.exponent = backend_->upload(e);
        learned.rows = backend_->upload(r);
        learned.columns = backend_->upload(c);
        const LearnedRounding rounding = backend_->round_learned(backend_->upload(w), learned);
        const LearnedGradient g =
            backend_->round_learned_backward(backend_->upload(slope), rounding.ratio, learned);
        MatrixD d(rows, cols);
        MatrixD dshift = MatrixD::Zero(rows, 3);
        for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < cols; ++j) {
                const double s = 0.25 * std::exp(shift(i, j / 4));
                const double v = w(i, j) / (s * std::exp(e(i, j) + r(i, 0) + c(0, j)));
                const double nearest = std::nearbyint(v);
                const double code = std::clamp(nearest, -4.0, 251.0);
                QVERIFY(std::abs(backend_->download_double(rounding.values)(i, j) - s * code) < 1e-12);
                d(i, j) = nearest == code ? -slope(i, j) * s * v : 0.0;
                dshift(i, j / 4) += slope(i, j) * s * code + d(i, j);
            }
        }
        QVERIFY((d.array() == 0.0).any()); // the clamp was met
        QVERIFY(relative_difference(backend_->download_double(g.dexponent), d) < 1e-12);
        QVERIFY(relative_difference(backend_->download_double(g.dshift), dshift) < 1e-12);
        QVERIFY(relative_difference(backend_->download_double(g.drows), d.rowwise().sum()) < 1e-12);
        QVERIFY(relative_difference(backend_->download_double(g.dcolumns), d.colwise().sum()) < 1e-12);
    }

    void broken_contracts_are_refused()
    {
        const Buffer x = backend_->allocate(4, 6, Precision::Float32);
        const Buffer other = backend_->allocate(4, 5, Precision::Float32);
        const Buffer gain = backend_->allocate(1, 6, Precision::Float32);
        QVERIFY_THROWS_EXCEPTION(BackendFailure,
                                 static_cast<void>(backend_->rms_norm_backward(x, gain, 1e-5, other)));
        QVERIFY_THROWS_EXCEPTION(BackendFailure, static_cast<void>(backend_->activate_multiply_backward(
                                                     x, other, Activation::Silu, x)));
        Buffer p = backend_->allocate(4, 6, Precision::Float32);
        Buffer m = p;
        Buffer v = backend_->allocate(4, 6, Precision::Float64);
        QVERIFY_THROWS_EXCEPTION(BackendFailure, backend_->adam_step(p, x, m, v, {}));
    }
};

QTEST_GUILESS_MAIN(TestBackward)
#include "test_backward.moc"
