// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/quantize/quantized_matrix.h"
#include "core/quantize/rounding.h"
#include "tests/support/sample_layer.h"
#include "tests/support/test_monitor.h"

#include <QtTest>

#include <Eigen/Cholesky>
#include <Eigen/LU>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

namespace {

UniformGrid grid_with(int bits, Index group)
{
    UniformGrid grid;
    grid.bits = bits;
    grid.group = group;
    return grid;
}

/// GPTQ as published (columns updated through the Cholesky factor of H⁻¹), in float64 on the scales given.
MatrixD published_gptq(const Matrix& weight, const MatrixD& hessian, const std::vector<Index>& order,
                       const UniformGrid& grid, const Matrix& scales, const Matrix& zeros)
{
    const Index n = weight.cols();
    MatrixD h(n, n);
    MatrixD w(weight.rows(), n);
    for (Index i = 0; i < n; ++i) {
        w.col(i) = weight.col(order[static_cast<std::size_t>(i)]).cast<double>();
        for (Index j = 0; j < n; ++j)
            h(i, j) = hessian(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(j)]);
    }
    const MatrixD inverse = h.inverse();
    const MatrixD c = Eigen::LLT<MatrixD>(inverse).matrixU();
    MatrixD codes(weight.rows(), n);
    for (Index j = 0; j < n; ++j) {
        const Index column = order[static_cast<std::size_t>(j)];
        const Index group = column / grid.group_width(n);
        VectorD error(weight.rows());
        for (Index row = 0; row < weight.rows(); ++row) {
            const double s = static_cast<double>(scales(row, group));
            const double z = static_cast<double>(zeros(row, group));
            const double code =
                std::clamp(std::nearbyint(w(row, j) / s), -z, std::ldexp(1.0, grid.bits) - 1.0 - z);
            codes(row, column) = code;
            error(row) = (w(row, j) - s * code) / c(j, j);
        }
        w.rightCols(n - j) -= error * c.row(j).tail(n - j);
    }
    return codes;
}

} // namespace

class TestQuantize : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

private slots:
    void quantized_matrix_is_scales_times_codes()
    {
        const SampleLayer layer = sample_layer({7, 45, 50, 1}, 1);
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers grid = backend_->fit_grid(w, grid_with(3, 16)); // groups of 16, 16 and 13
        const RoundedBuffers rounded = backend_->round_nearest(w, grid);
        const QuantizedMatrix quantized = to_host(rounded, grid, *backend_);
        QCOMPARE(quantized.scales.cols(), Index{3});
        QVERIFY(quantized.dequantize() == backend_->download(rounded.values));
        for (Index i = 0; i < quantized.codes.rows(); ++i)
            for (Index j = 0; j < quantized.codes.cols(); ++j)
                QVERIFY(quantized.dequantize()(i, j)
                        == quantized.scales(i, j / 16) * static_cast<float>(quantized.codes(i, j)));
    }

    void bits_count_scales_and_zeros()
    {
        QuantizedMatrix q;
        q.codes.setZero(10, 172);
        q.grid = grid_with(2, 64); // three groups, the last of 44
        QCOMPARE(q.bits_per_weight(), 2.0 + 10.0 * 3.0 * 18.0 / 1720.0);
        q.grid.symmetric = true;
        QCOMPARE(q.bits_per_weight(), 2.0 + 10.0 * 3.0 * 16.0 / 1720.0);
        q.grid.group = 0;
        QCOMPARE(q.bits_per_weight(), 2.0 + 16.0 / 172.0);
        q.grid.group = -1;
        QCOMPARE(q.bits_per_weight(), 2.0 + 16.0 / 1720.0);
        QCOMPARE(QuantizedMatrix{}.bits_per_weight(), 0.0);
    }

    void damping_follows_the_rule()
    {
        MatrixD h(3, 3);
        h << 4, 1, 0, 3, 8, 0, 0, 0, 0; // not symmetric, channel 2 dead
        Matrix w = Matrix::Ones(2, 3);
        QCOMPARE(prepare_hessian(h, w, 0.01), Index{1});
        const double rho = 0.01 * (4.0 + 8.0 + 1.0) / 3.0;
        QCOMPARE(h(0, 0), 4.0 + rho);
        QCOMPARE(h(0, 1), 2.0);
        QCOMPARE(h(1, 0), 2.0);
        QCOMPARE(h(2, 2), 1.0 + rho);
        QVERIFY(w.col(2).isZero() && w(0, 0) == 1.0F);
    }

    void factor_reproduces_the_hessian()
    {
        SampleLayer layer = sample_layer({4, 33, 100, 2}, 2);
        prepare_hessian(layer.moments.hessian, layer.weight, 0.01);
        for (const bool act_order : {false, true}) {
            const auto factor =
                FeedbackFactor::make(layer.moments.hessian, act_order, *backend_, silent_monitor());
            QVERIFY(factor.has_value());
            const MatrixD u = backend_->download(factor->factor()).cast<double>();
            const MatrixD product = u * factor->diagonal().asDiagonal() * u.transpose();
            double worst = 0.0;
            for (Index i = 0; i < 33; ++i) {
                QCOMPARE(u(i, i), 1.0);
                for (Index j = 0; j < 33; ++j) {
                    QVERIFY(j >= i || u(i, j) == 0.0);
                    const double expected =
                        layer.moments.hessian(factor->order()[static_cast<std::size_t>(i)],
                                              factor->order()[static_cast<std::size_t>(j)]);
                    worst = std::max(worst, std::abs(product(i, j) - expected));
                }
            }
            QVERIFY2(worst < 1e-5 * layer.moments.hessian.diagonal().maxCoeff(),
                     qPrintable(QString::number(worst)));
            for (std::size_t i = 1; act_order && i < factor->order().size(); ++i)
                QVERIFY(layer.moments.hessian.diagonal()(factor->order()[i - 1])
                        >= layer.moments.hessian.diagonal()(factor->order()[i]));
        }
    }

    void feedback_equals_published_gptq_data()
    {
        QTest::addColumn<bool>("act_order");
        QTest::addColumn<int>("group");
        QTest::newRow("in order") << false << 16;
        QTest::newRow("by activation") << true << 16;
        QTest::newRow("per row, by activation") << true << 0;
    }

    void feedback_equals_published_gptq()
    {
        QFETCH(bool, act_order);
        QFETCH(int, group);
        SampleLayer layer = sample_layer({20, 56, 300, 3}, 3);
        prepare_hessian(layer.moments.hessian, layer.weight, 0.01);
        const auto factor =
            FeedbackFactor::make(layer.moments.hessian, act_order, *backend_, silent_monitor());
        QVERIFY(factor.has_value());
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers grid = backend_->fit_grid(w, grid_with(3, group));
        const QuantizedMatrix q =
            to_host(factor->round(w, grid, *backend_, silent_monitor()), grid, *backend_);
        const MatrixD expected =
            published_gptq(layer.weight, layer.moments.hessian, factor->order(), q.grid, q.scales, q.zeros);
        // float32 may turn a code that lies on a tie, and what follows it in that row; not more.
        const Index different = (q.codes.cast<double>().array() != expected.array()).count();
        QVERIFY2(different <= q.codes.size() / 100, qPrintable(QString::number(different)));
    }

    void trace_identity_holds() // tr((W−Q)·H·(W−Q)ᵀ) = Σ D_k ‖e_k‖² with e = (W−Q)·U
    {
        SampleLayer layer = sample_layer({12, 30, 200, 2}, 4);
        prepare_hessian(layer.moments.hessian, layer.weight, 0.01);
        const auto factor = FeedbackFactor::make(layer.moments.hessian, false, *backend_, silent_monitor());
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers grid = backend_->fit_grid(w, grid_with(2, 10));
        const Matrix q = backend_->download(factor->round(w, grid, *backend_, silent_monitor()).values);
        const MatrixD e =
            (layer.weight - q).cast<double>() * backend_->download(factor->factor()).cast<double>();
        const double by_columns =
            (e.colwise().squaredNorm().transpose().array() * factor->diagonal().array()).sum();
        const double direct = objective(layer.weight - q, layer.moments.hessian);
        QVERIFY2(std::abs(by_columns - direct) < 1e-5 * direct,
                 qPrintable(QString("%1 %2").arg(by_columns).arg(direct)));
    }

    void row_blocks_change_nothing()
    {
        // Large enough that the rounding is cut into two blocks of rows.
        SampleLayer layer = sample_layer({3200, 600, 8, 0}, 5);
        layer.moments.hessian = MatrixD::Identity(600, 600);
        for (Index i = 1; i < 600; ++i)
            layer.moments.hessian(i, i - 1) = layer.moments.hessian(i - 1, i) = 0.3;
        const auto factor = FeedbackFactor::make(layer.moments.hessian, false, *backend_, silent_monitor());
        QVERIFY(factor.has_value());
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers grid = backend_->fit_grid(w, grid_with(3, 128));
        const Matrix blocks = backend_->download(factor->round(w, grid, *backend_, silent_monitor()).codes);
        const Matrix whole = backend_->download(
            backend_->round_with_feedback(w, factor->factor(), grid, factor->order()).codes);
        QVERIFY((blocks.array() != whole.array()).count() <= whole.size() / 10000);
    }

    void search_in_blocks_equals_search_at_once()
    {
        const SampleLayer layer = sample_layer({300, 600, 2, 0}, 6);
        UniformGrid grid = grid_with(2, 64);
        grid.clip = ClipSearch::Shrink;
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers blocks = fit_grid(w, grid, *backend_, silent_monitor());
        const GridBuffers whole = backend_->fit_grid(w, grid);
        QVERIFY(backend_->download(blocks.scales) == backend_->download(whole.scales));
        QVERIFY(backend_->download(blocks.zeros) == backend_->download(whole.zeros));
    }

    void tuning_never_raises_the_objective_data()
    {
        QTest::addColumn<bool>("symmetric");
        QTest::newRow("asymmetric") << false;
        QTest::newRow("symmetric") << true;
    }

    void tuning_never_raises_the_objective()
    {
        QFETCH(bool, symmetric);
        SampleLayer layer = sample_layer({37, 50, 200, 3}, 7);
        prepare_hessian(layer.moments.hessian, layer.weight, 0.01);
        const MatrixD& h = layer.moments.hessian;
        const Buffer w = backend_->upload(layer.weight);
        UniformGrid settings = grid_with(2, 16);
        settings.symmetric = symmetric;
        const GridBuffers grid = backend_->fit_grid(w, settings);
        const auto error_of = [&](const RoundedBuffers& rounded) {
            return objective(layer.weight - backend_->download(rounded.values), h);
        };
        const RoundedBuffers nearest = backend_->round_nearest(w, grid);
        double before = error_of(nearest);
        for (int passes = 1; passes <= 3; ++passes) {
            const RoundedBuffers tuned =
                tune_rounding(w, nearest, backend_->upload(h), grid, passes, *backend_, silent_monitor());
            const double after = error_of(tuned);
            QVERIFY(after <= before * (1.0 + 1e-9));
            before = after;
            const QuantizedMatrix q = to_host(tuned, grid, *backend_);
            QVERIFY(q.dequantize() == backend_->download(tuned.values));
            for (Index i = 0; i < q.codes.rows(); ++i) {
                for (Index j = 0; j < q.codes.cols(); ++j) {
                    const int low = symmetric ? -2 : -static_cast<int>(q.zeros(i, j / 16));
                    QVERIFY(q.codes(i, j) >= low && q.codes(i, j) <= low + 3);
                }
            }
        }
        QVERIFY2(before < 0.9 * error_of(nearest), "coordinate descent found hardly anything");
        QVERIFY(tune_rounding(w, nearest, backend_->upload(h), grid, 0, *backend_, silent_monitor()).codes.storage()
                == nearest.codes.storage());
    }

    void singular_moments_are_damped_and_said()
    {
        const MatrixD h =
            VectorD::Ones(6) * VectorD::Ones(6).transpose() - 0.001 * MatrixD::Identity(6, 6); // indefinite
        TestMonitor listener;
        QVERIFY(FeedbackFactor::make(h, false, *backend_, listener).has_value());
        QVERIFY(!listener.warnings().empty());
    }

    void hopeless_moments_are_refused()
    {
        const MatrixD negative = -MatrixD::Identity(4, 4) * 1e6;
        const auto factor = FeedbackFactor::make(negative, true, *backend_, silent_monitor());
        QVERIFY(!factor.has_value());
        QCOMPARE(factor.error().kind, ErrorKind::BadInput);
        MatrixD broken = MatrixD::Identity(4, 4);
        broken(1, 2) = std::numeric_limits<double>::quiet_NaN();
        QVERIFY(!FeedbackFactor::make(broken, false, *backend_, silent_monitor()).has_value());
    }

    void cancel_is_heard()
    {
        const SampleLayer layer = sample_layer({4, 12, 40, 1}, 8);
        const auto factor = FeedbackFactor::make(layer.moments.hessian, false, *backend_, silent_monitor());
        const Buffer w = backend_->upload(layer.weight);
        const GridBuffers grid = backend_->fit_grid(w, grid_with(3, 4));
        TestMonitor cancelled(0);
        cancelled.report(0, 1, "start"); // one report is more than it allows
        QVERIFY_THROWS_EXCEPTION(Cancelled, factor->round(w, grid, *backend_, cancelled));
        const RoundedBuffers nearest = backend_->round_nearest(w, grid);
        QVERIFY_THROWS_EXCEPTION(
            Cancelled, tune_rounding(w, nearest, backend_->upload(layer.moments.hessian), grid, 1, *backend_, cancelled));
    }
};

QTEST_GUILESS_MAIN(TestQuantize)
#include "test_quantize.moc"
