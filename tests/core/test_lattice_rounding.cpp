// SPDX-License-Identifier: GPL-3.0-or-later
// Rounding to the E8P lattice with feedback, the random Hadamard transform, quantized factors.
#include "core/linalg/incoherence.h"
#include "core/quantize/lattice_rounding.h"
#include "core/quantize/quantized_factors.h"
#include "core/quantize/quantized_matrix.h"
#include "tests/support/sample_layer.h"

#include <QtTest>

#include <Eigen/LU>

#include <cmath>
#include <limits>

using namespace rankscope;
using namespace rankscope::test;

class TestLatticeRounding : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    static MatrixD damped(const SampleLayer& layer)
    {
        MatrixD hessian = layer.moments.hessian;
        hessian.diagonal().array() += 0.01 * hessian.diagonal().mean();
        return hessian;
    }

    LatticeFeedback feedback(const MatrixD& hessian, bool block_order)
    {
        auto made = LatticeFeedback::make(hessian, block_order, *backend_, silent_monitor());
        Q_ASSERT(made.has_value());
        return std::move(*made);
    }

    LatticeLayer layer_of(const LatticeFeedback& feedback, const Matrix& w, int bits)
    {
        return feedback.round(backend_->upload(w), bits, *backend_, silent_monitor());
    }
    E8Matrix round(const LatticeFeedback& feedback, const Matrix& w, int bits)
    {
        return to_host(layer_of(feedback, w, bits), *backend_);
    }
    E8Matrix tune(const Matrix& w, const LatticeLayer& start, const MatrixD& hessian, int passes)
    {
        return to_host(tune_lattice(backend_->upload(w), start, backend_->upload(hessian), passes, *backend_,
                                    silent_monitor()),
                       *backend_);
    }

private slots:
    void factor_gives_the_moments_back()
    {
        for (const Index n : {1, 7, 8, 24, 37}) {
            const SampleLayer layer = sample_layer({9, n, 200, n > 4 ? 2 : 0}, 1);
            const MatrixD hessian = damped(layer);
            const LatticeFeedback made = feedback(hessian, false);
            MatrixD diagonal = MatrixD::Zero(n, n);
            Index place = 0;
            for (const MatrixD& block : made.diagonal()) {
                diagonal.block(place, place, block.rows(), block.cols()) = block;
                QVERIFY(made.factor().block(place, place, block.rows(), block.cols()).isIdentity(1e-12));
                place += block.rows();
            }
            QCOMPARE(place, n);
            const MatrixD product = made.factor() * diagonal * made.factor().transpose();
            QVERIFY((product - hessian).norm() < 1e-10 * hessian.norm());
        }
    }

    /// tr(E·H·Eᵀ) = Σ tr(E_k·D_k·E_kᵀ), the errors as the lattice made them.
    void objective_is_the_sum_of_the_blocks_errors()
    {
        const SampleLayer layer = sample_layer({20, 48, 300, 3}, 2);
        const MatrixD hessian = damped(layer);
        const LatticeFeedback made = feedback(hessian, false);
        const E8Matrix q = round(made, layer.weight, 2);
        const Matrix error = layer.weight - q.values;
        const MatrixD made_errors = error.cast<double>() * made.factor();
        double sum = 0.0;
        for (std::size_t k = 0; k < made.diagonal().size(); ++k) {
            const MatrixD part = made_errors.middleCols(8 * static_cast<Index>(k), 8);
            sum += (part * made.diagonal()[k] * part.transpose()).trace();
        }
        const double whole = objective(error, hessian);
        QVERIFY2(std::abs(sum / whole - 1.0) < 1e-5, qPrintable(QString::number(sum / whole)));
    }

    void feedback_and_tuning_lower_the_error()
    {
        double nearest = 0.0, plain = 0.0, ordered = 0.0, tuned = 0.0;
        for (std::uint64_t seed = 3; seed < 8; ++seed) {
            // Rotated, as the lattice wants it.
            const SampleLayer layer = sample_layer({40, 64, 400, 3}, seed);
            const Incoherence transform = Incoherence::random(40, 64, seed, "layer");
            const MatrixD hessian = transform.hessian(damped(layer), *backend_);
            const Matrix w = backend_->download(transform.weight(backend_->upload(layer.weight), *backend_));
            const auto error_of = [&](const E8Matrix& q) { return objective(w - q.values, hessian); };
            nearest += error_of(e8p_round(w, 2, k_e8p_scale, false));
            const LatticeLayer start = layer_of(feedback(hessian, false), w, 2);
            const E8Matrix q = to_host(start, *backend_);
            plain += error_of(q);
            ordered += error_of(round(feedback(hessian, true), w, 2));
            const E8Matrix better = tune(w, start, hessian, 2);
            QVERIFY(error_of(better) <= error_of(q));
            tuned += error_of(better);
        }
        QVERIFY2(plain < 0.8 * nearest && ordered < 0.8 * nearest && tuned < plain,
                 qPrintable(QString("%1 %2 %3 %4").arg(nearest).arg(plain).arg(ordered).arg(tuned)));
    }

    void without_correlation_it_is_nearest_rounding()
    {
        const SampleLayer layer = sample_layer({11, 29, 100, 0}, 9);
        for (const int bits : {2, 4}) {
            const E8Matrix q = round(feedback(MatrixD::Identity(29, 29), true), layer.weight, bits);
            const E8Matrix expected = e8p_round(layer.weight, bits, k_e8p_scale, false);
            QVERIFY(q.codes == expected.codes);
            QVERIFY((q.values - expected.values).norm() < 1e-5F * expected.values.norm());
        }
    }

    void codes_hold_the_values_and_bits_are_counted()
    {
        for (const int bits : {2, 4}) {
            const SampleLayer layer = sample_layer({10, 21, 100, 1}, 10);
            const LatticeLayer start = layer_of(feedback(damped(layer), true), layer.weight, bits);
            const E8Matrix tuned = tune(layer.weight, start, damped(layer), 2);
            const QuantizedMatrix stored = to_quantized(tuned, bits);
            QCOMPARE(stored.rows(), Index{10});
            QCOMPARE(stored.cols(), Index{21});
            QVERIFY((stored.dequantize() - tuned.values).norm() <= 1e-6F * tuned.values.norm());
            // 21 inputs take three groups of eight; one scale of 16 bits.
            QCOMPARE(stored.bits_per_weight(), (10.0 * 24.0 * bits + 16.0) / 210.0);
        }
    }

    void nothing_stays_nothing()
    {
        const Matrix zero = Matrix::Zero(5, 19);
        const LatticeLayer start = layer_of(feedback(MatrixD::Identity(19, 19), true), zero, 2);
        const E8Matrix q = to_host(start, *backend_);
        QVERIFY(q.values.isZero(0.0F));
        QVERIFY(to_quantized(q, 2).dequantize().isZero(0.0F));
        QVERIFY(tune(zero, start, MatrixD::Identity(19, 19), 3).values.isZero(0.0F));
    }

    void broken_moments_are_refused()
    {
        MatrixD hessian = MatrixD::Identity(9, 9);
        hessian(2, 3) = std::numeric_limits<double>::quiet_NaN();
        QVERIFY(!LatticeFeedback::make(hessian, true, *backend_, silent_monitor()).has_value());
        QVERIFY(
            !LatticeFeedback::make(-MatrixD::Identity(9, 9), true, *backend_, silent_monitor()).has_value());
    }

    void rotation_keeps_the_objective_and_comes_back()
    {
        for (const auto& [m, n] : {std::pair<Index, Index>{1, 1}, {7, 45}, {32, 36}, {40, 96}}) {
            const SampleLayer layer = sample_layer({m, n, 300, n > 4 ? 2 : 0}, 11);
            const Incoherence transform = Incoherence::random(m, n, 5, "layer");
            const Matrix w = backend_->download(transform.weight(backend_->upload(layer.weight), *backend_));
            const MatrixD h = transform.hessian(layer.moments.hessian, *backend_);
            const double before = objective(layer.weight, layer.moments.hessian);
            QVERIFY(std::abs(objective(w, h) / before - 1.0) < 1e-5);
            const Matrix back = transform.restored_weight(w, *backend_);
            QVERIFY((back - layer.weight).norm() < 1e-5F * layer.weight.norm());
            // Factors rotate as their product does.
            const Matrix left = layer.weight.leftCols(1);
            const Matrix right = layer.weight.topRows(1);
            const Buffer l = transform.left_factor(backend_->upload(left), *backend_);
            const Buffer r = transform.right_factor(backend_->upload(right), *backend_);
            const Matrix both = backend_->download(backend_->multiply(l, r));
            QVERIFY((transform.restored_weight(both, *backend_) - left * right).norm()
                    < 1e-5F * (left * right).norm());
            QVERIFY((transform.restored_left(backend_->download(l), *backend_) - left).norm()
                    < 1e-5F * left.norm());
            QVERIFY((transform.restored_right(backend_->download(r), *backend_) - right).norm()
                    < 1e-5F * right.norm());
        }
        const Incoherence again = Incoherence::random(40, 96, 5, "layer");
        QVERIFY(again.right_signs() == Incoherence::random(40, 96, 5, "layer").right_signs());
        QVERIFY(again.right_signs() != Incoherence::random(40, 96, 6, "layer").right_signs());
        QVERIFY(again.right_signs() != Incoherence::random(40, 96, 5, "other").right_signs());
        QVERIFY(again.right_signs().cwiseAbs().isOnes());
    }

    void downdate_is_what_a_refit_leaves()
    {
        const SampleLayer layer = sample_layer({12, 30, 300, 2}, 12);
        const MatrixD hessian = damped(layer);
        const Matrix right = sample_layer({4, 30, 10, 0}, 13).weight;
        const MatrixD left_over =
            downdated_hessian(backend_->upload(hessian), backend_->upload(right), *backend_);
        QVERIFY((right.cast<double>() * left_over).norm() < 1e-8 * hessian.norm() * double(right.norm()));
        // The best L for E: E·H·Rᵀ·(R·H·Rᵀ)⁻¹.
        const MatrixD e = layer.weight.cast<double>();
        const MatrixD r = right.cast<double>();
        const MatrixD metric = r * hessian * r.transpose();
        const MatrixD best = e * hessian * r.transpose() * metric.inverse();
        const MatrixD rest = e - best * r;
        const double expected = (rest * hessian * rest.transpose()).trace();
        QVERIFY(std::abs((e * left_over * e.transpose()).trace() / expected - 1.0) < 1e-8);
    }

    void quantized_factors_come_near_the_exact_ones()
    {
        const SampleLayer layer = sample_layer({40, 64, 400, 3}, 14);
        const Buffer w = backend_->upload(layer.weight);
        const Buffer hessian = backend_->upload(damped(layer));
        const auto objective_of = [&](const FactorOptions& options) {
            const LowRankBuffers factors =
                quantized_low_rank(w, hessian, 6, options, *backend_, silent_monitor());
            const Matrix error =
                layer.weight - backend_->download(backend_->multiply(factors.left, factors.right));
            const double measured = objective(error, damped(layer));
            if (std::abs(factors.tail / measured - 1.0) > 1e-3)
                return std::numeric_limits<double>::quiet_NaN();
            return measured;
        };
        const double exact = objective_of({16, true, 10});
        const double bytes = objective_of({8, true, 10});
        const double lattice = objective_of({4, true, 10});
        const double once = objective_of({4, true, 1});
        const double one_scale = objective_of({4, false, 10});
        QVERIFY2(exact <= bytes * (1.0 + 1e-6) && bytes < 1.05 * exact && bytes < lattice && lattice <= once
                     && lattice < 2.0 * exact && one_scale < 3.0 * exact,
                 qPrintable(
                     QString("%1 %2 %3 %4 %5").arg(exact).arg(bytes).arg(lattice).arg(once).arg(one_scale)));
    }

    void quantized_factors_of_nothing_are_nothing()
    {
        for (const int bits : {8, 4}) {
            const LowRankBuffers factors =
                quantized_low_rank(backend_->upload(Matrix(Matrix::Zero(9, 12))),
                                   backend_->upload(MatrixD(MatrixD::Identity(12, 12))), 3, {bits, true, 3},
                                   *backend_, silent_monitor());
            QVERIFY(backend_->download(backend_->multiply(factors.left, factors.right)).isZero(0.0F));
        }
        QCOMPARE(factor_storage_bits(10, 21, 0, {4, true, 1}), 0.0);
        QCOMPARE(factor_storage_bits(10, 21, 3, {16, true, 1}), 16.0 * 3 * 31);
        QCOMPARE(factor_storage_bits(10, 21, 3, {8, true, 1}), 8.0 * 3 * 31 + 16.0 * 6);
        QCOMPARE(factor_storage_bits(10, 21, 3, {4, false, 1}), 4.0 * 3 * 40 + 32.0);
    }
};

QTEST_GUILESS_MAIN(TestLatticeRounding)
#include "test_lattice_rounding.moc"
