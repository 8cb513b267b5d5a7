// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/base/thread_pool.h"
#include "core/compute/activation_quantization.h"
#include "tests/support/numbers.h"

#include <QtTest>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

/// methods-joint §1.5, written out.
Matrix quantized_plainly(const Matrix& x, int bits, double clip)
{
    const double highest = std::ldexp(1.0, bits - 1) - 1.0;
    Matrix result(x.rows(), x.cols());
    for (Index token = 0; token < x.rows(); ++token) {
        const double largest = x.row(token).cwiseAbs().maxCoeff();
        const double step = largest > 0.0 ? clip * largest / highest : 1.0;
        for (Index i = 0; i < x.cols(); ++i) {
            const double code = std::nearbyint(static_cast<double>(x(token, i)) / step);
            result(token, i) = static_cast<float>(step * std::clamp(code, -highest - 1.0, highest));
        }
    }
    return result;
}

} // namespace

class TestActivationQuantization : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    Matrix quantized(const Matrix& x, int bits, double clip)
    {
        return backend_->download(quantized_activations(backend_->upload(x), {bits, clip}, *backend_));
    }

private slots:
    void follows_the_rule_of_every_token()
    {
        for (const int bits : {2, 3, 4, 8}) {
            for (const double clip : {1.0, 0.9, 0.7}) {
                for (const auto& [tokens, width] :
                     {std::pair<Index, Index>{1, 1}, {3, 7}, {17, 96}, {5, 131}}) {
                    Matrix x = random_floats(tokens, width, static_cast<std::uint64_t>(bits));
                    x.row(0) *= 100.0F; // its size must not matter to the others
                    const Matrix expected = quantized_plainly(x, bits, clip);
                    const Matrix actual = quantized(x, bits, clip);
                    // A quotient within float32's error of a tie may go to either side.
                    const auto differing =
                        ((actual - expected).array().abs() > 1e-5F * x.cwiseAbs().maxCoeff()).count();
                    QVERIFY(differing <= expected.size() / 500);
                }
            }
        }
    }

    void clipping_shortens_the_range_only()
    {
        Matrix x(1, 4);
        x << 1.0F, -1.0F, 0.5F, 0.0F;
        const Matrix clipped = quantized(x, 4, 0.9);
        QVERIFY(std::abs(clipped(0, 0) - 0.9F) < 1e-6F);               // 7 steps at most
        QVERIFY(std::abs(clipped(0, 1) + 8.0F * 0.9F / 7.0F) < 1e-6F); // but 8 below zero
        const Matrix whole = quantized(x, 4, 1.0);
        QVERIFY(std::abs(whole(0, 0) - 1.0F) < 1e-6F);
        QVERIFY(std::abs(whole(0, 1) + 1.0F) < 1e-6F);
    }

    void a_token_of_zeros_stays_zero()
    {
        Matrix x = random_floats(3, 12, 1);
        x.row(1).setZero();
        const Matrix result = quantized(x, 4, 0.9);
        QVERIFY(result.row(1).isZero(0.0F));
        QVERIFY(result.allFinite());
    }

    void sixteen_bits_change_nothing()
    {
        const Buffer x = backend_->upload(random_floats(4, 9, 2));
        QCOMPARE(quantized_activations(x, {}, *backend_).storage(), x.storage());
        QVERIFY(!ActivationQuantization{}.active());
        QVERIFY((ActivationQuantization{16, 0.9} == ActivationQuantization{16, 1.0}));
        QVERIFY(!(ActivationQuantization{4, 0.9} == ActivationQuantization{4, 1.0}));
    }

    void threads_change_no_byte()
    {
        const Matrix x = random_floats(257, 130, 3);
        set_thread_count(1);
        const Matrix one = quantized(x, 4, 0.9);
        set_thread_count(2);
        QVERIFY(same_bytes(one, quantized(x, 4, 0.9)));
    }
};

QTEST_GUILESS_MAIN(TestActivationQuantization)
#include "test_activation_quantization.moc"
