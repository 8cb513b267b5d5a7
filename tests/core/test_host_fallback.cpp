// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/linalg/weighted_low_rank.h"
#include "tests/support/copying_backend.h"
#include "tests/support/numbers.h"

#include <QTest>

#include <functional>

using namespace rankscope;
using namespace rankscope::test;

namespace {

const std::vector<Index> k_picked{3, 0, 7};
const std::vector<double> k_frequencies{1.0, 0.1};

struct Case {
    const char* name;
    std::function<MatrixD(Backend&)> run; ///< same text on both backends
};

Buffer floats(Backend& backend, Index rows, Index cols, std::uint64_t seed)
{
    return backend.upload(random_floats(rows, cols, seed));
}

MatrixD changed(Backend& backend, Buffer buffer, const std::function<void(Buffer&)>& operation)
{
    operation(buffer);
    return backend.download_double(buffer);
}

UniformGrid grid_of_three_bits()
{
    UniformGrid grid;
    grid.bits = 3;
    grid.group = 8;
    return grid;
}

std::vector<Case> memory_and_product_cases()
{
    return {
        {"rows_of", [](Backend& b) { return b.download_double(b.rows_of(floats(b, 9, 8, 1), 2, 4)); }},
        {"gather_columns",
         [](Backend& b) { return b.download_double(b.gather_columns(floats(b, 9, 8, 1), k_picked)); }},
        {"gather_rows",
         [](Backend& b) { return b.download_double(b.gather_rows(floats(b, 9, 8, 1), k_picked)); }},
        {"transposed", [](Backend& b) { return b.download_double(b.transposed(floats(b, 9, 8, 1))); }},
        {"copy is another matrix",
         [](Backend& b) {
             const Buffer original = floats(b, 4, 4, 1);
             Buffer second = b.copy(original);
             b.add_scaled(1.0, original, 1.0, second);
             return b.download_double(original);
         }},
        {"gemm",
         [](Backend& b) { return b.download_double(b.multiply(floats(b, 17, 33, 2), floats(b, 33, 5, 3))); }},
        {"gemm adds to c",
         [](Backend& b) {
             return changed(b, floats(b, 17, 5, 4), [&](Buffer& c) {
                 b.gemm(2.0, floats(b, 33, 17, 2), Transpose::Yes, floats(b, 5, 33, 3), Transpose::Yes, -0.5,
                        c);
             });
         }},
        {"gram",
         [](Backend& b) {
             return changed(b, b.allocate(17, 17),
                            [&](Buffer& c) { b.gram(1.0, floats(b, 33, 17, 2), Transpose::Yes, 0.0, c); });
         }},
        {"gram into float64",
         [](Backend& b) {
             return changed(b, b.allocate(17, 17, Precision::Float64),
                            [&](Buffer& c) { b.gram(1.0, floats(b, 33, 17, 2), Transpose::Yes, 1.0, c); });
         }},
        {"add_scaled",
         [](Backend& b) {
             return changed(b, floats(b, 4, 9, 5),
                            [&](Buffer& y) { b.add_scaled(2.0, floats(b, 4, 9, 6), 3.0, y); });
         }},
        {"difference",
         [](Backend& b) { return b.download_double(b.difference(floats(b, 4, 9, 5), floats(b, 4, 9, 6))); }},
        {"scale_columns",
         [](Backend& b) {
             return changed(b, floats(b, 4, 9, 5),
                            [&](Buffer& x) { b.scale_columns(x, VectorD::LinSpaced(9, 1, 9)); });
         }},
        {"scale_rows",
         [](Backend& b) {
             return changed(b, floats(b, 4, 9, 5),
                            [&](Buffer& x) { b.scale_rows(x, VectorD::LinSpaced(4, 1, 4)); });
         }},
        {"dot",
         [](Backend& b) { return MatrixD::Constant(1, 1, b.dot(floats(b, 4, 9, 5), floats(b, 4, 9, 6))); }},
        {"max_abs", [](Backend& b) { return MatrixD::Constant(1, 1, b.max_abs(floats(b, 4, 9, 5))); }},
    };
}

std::vector<Case> factorization_cases()
{
    const auto moments = [](Backend& b) { return b.upload(Matrix(random_moments(12, 7).cast<float>())); };
    return {
        {"cholesky", [=](Backend& b) { return b.download_double(*b.cholesky(moments(b))); }},
        {"cholesky in float64",
         [](Backend& b) { return b.download_double(*b.cholesky(b.upload(random_moments(12, 7)))); }},
        {"cholesky refuses",
         [](Backend& b) {
             return MatrixD::Constant(1, 1, b.cholesky(b.upload(Matrix(-Matrix::Identity(3, 3)))) ? 1 : 0);
         }},
        {"solve_lower",
         [=](Backend& b) {
             return changed(b, floats(b, 12, 5, 8),
                            [&](Buffer& x) { b.solve_lower(*b.cholesky(moments(b)), Transpose::Yes, x); });
         }},
        {"top_eigen", [=](Backend& b) { return b.download_double(b.top_eigen(moments(b), 3).vectors); }},
        {"symmetric_eigenvalues", [=](Backend& b) { return MatrixD(b.symmetric_eigenvalues(moments(b))); }},
        {"singular_values", [](Backend& b) { return MatrixD(b.singular_values(floats(b, 9, 14, 8))); }},
        {"orthonormalize",
         [](Backend& b) { return changed(b, floats(b, 14, 6, 8), [&](Buffer& y) { b.orthonormalize(y); }); }},
        {"weighted_low_rank",
         [](Backend& b) {
             const auto factors =
                 weighted_low_rank(floats(b, 20, 12, 9), b.upload(random_moments(12, 7)), 4, b);
             return b.download_double(b.multiply(factors.left, factors.right));
         }},
    };
}

std::vector<Case> rounding_cases()
{
    const auto fitted = [](Backend& b) { return b.fit_grid(floats(b, 9, 20, 10), grid_of_three_bits()); };
    return {
        {"hadamard",
         [](Backend& b) {
             return changed(b, floats(b, 9, 36, 10), [&](Buffer& x) { b.hadamard(x, Transpose::Yes); });
         }},
        {"scales", [=](Backend& b) { return b.download_double(fitted(b).scales); }},
        {"zeros", [=](Backend& b) { return b.download_double(fitted(b).zeros); }},
        {"codes",
         [=](Backend& b) {
             return b.download_double(b.round_nearest(floats(b, 9, 20, 10), fitted(b)).codes);
         }},
        {"values",
         [=](Backend& b) {
             return b.download_double(b.round_nearest(floats(b, 9, 20, 10), fitted(b)).values);
         }},
        {"round_with_feedback",
         [=](Backend& b) {
             return b.download_double(
                 b.round_with_feedback(floats(b, 9, 20, 10), floats(b, 20, 20, 11), fitted(b), {}).values);
         }},
    };
}

std::vector<Case> forward_cases()
{
    const auto bias = [](Backend& b) { return floats(b, 1, 12, 12); };
    return {
        {"rms_norm",
         [=](Backend& b) { return b.download_double(b.rms_norm(floats(b, 9, 12, 13), bias(b), 1e-5)); }},
        {"rms_norm of each head",
         [](Backend& b) {
             return b.download_double(b.rms_norm(floats(b, 9, 12, 13), floats(b, 1, 4, 12), 1e-5));
         }},
        {"layer_norm",
         [=](Backend& b) {
             return b.download_double(
                 b.layer_norm(floats(b, 9, 12, 13), bias(b), floats(b, 1, 12, 16), 1e-5));
         }},
        {"add_bias",
         [=](Backend& b) {
             return changed(b, floats(b, 9, 12, 13), [&](Buffer& x) { b.add_bias(x, bias(b)); });
         }},
        {"rope",
         [](Backend& b) {
             return changed(b, floats(b, 10, 12, 13), [&](Buffer& x) {
                 b.rope(x, {2, 6, 5, k_frequencies, 1.0});
             });
         }},
        {"attention",
         [](Backend& b) {
             return b.download_double(b.attention(floats(b, 10, 12, 13), floats(b, 10, 6, 14),
                                                  floats(b, 10, 6, 15), {4, 2, 3, 5, 0.5, 0}));
         }},
        {"silu_multiply",
         [](Backend& b) {
             return changed(b, floats(b, 9, 12, 13),
                            [&](Buffer& gate) { b.silu_multiply(gate, floats(b, 9, 12, 14)); });
         }},
        {"activate",
         [](Backend& b) {
             return changed(b, floats(b, 9, 12, 13), [&](Buffer& x) { b.activate(x, Activation::Gelu); });
         }},
        {"activate_multiply",
         [](Backend& b) {
             return changed(b, floats(b, 9, 12, 13), [&](Buffer& gate) {
                 b.activate_multiply(gate, floats(b, 9, 12, 14), Activation::GeluTanh);
             });
         }},
        {"activate_multiply with silu",
         [](Backend& b) {
             return changed(b, floats(b, 9, 12, 13), [&](Buffer& gate) {
                 b.activate_multiply(gate, floats(b, 9, 12, 14), Activation::Silu);
             });
         }},
        {"soft_cap",
         [](Backend& b) { return changed(b, floats(b, 9, 12, 13), [&](Buffer& x) { b.soft_cap(x, 0.5); }); }},
        {"cross_entropy",
         [](Backend& b) { return MatrixD(b.cross_entropy(floats(b, 3, 12, 13), k_picked)); }},
        {"kl_divergence",
         [](Backend& b) { return MatrixD(b.kl_divergence(floats(b, 3, 12, 13), floats(b, 3, 12, 14))); }},
        {"row_argmax",
         [](Backend& b) {
             const std::vector<Index> columns = b.row_argmax(floats(b, 3, 12, 13));
             return MatrixD{{static_cast<double>(columns[0]), static_cast<double>(columns[1]),
                             static_cast<double>(columns[2])}};
         }},
    };
}

} // namespace

class TestHostFallback : public QObject {
    Q_OBJECT
private Q_SLOTS:
    void equals_the_cpu_path()
    {
        const auto cpu = make_cpu_backend();
        CopyingBackend device;
        for (const auto& group :
             {memory_and_product_cases(), factorization_cases(), rounding_cases(), forward_cases()}) {
            for (const Case& one : group) {
                const MatrixD expected = one.run(*cpu);
                QVERIFY2(expected.size() > 0, one.name);
                QVERIFY2(same_bytes(one.run(device), expected), one.name);
            }
        }
        QVERIFY(device.assignments() > 8);
    }

    void float64_results_stay_on_the_host()
    {
        CopyingBackend device;
        Buffer moments = device.allocate(8, 8, Precision::Float64);
        device.gram(1.0, floats(device, 8, 20, 1), Transpose::No, 0.0, moments);
        Buffer scaled = device.copy(moments);
        device.add_scaled(1.0, moments, 1.0, scaled);
        QCOMPARE(device.assignments(), 0);
        QVERIFY(same_bytes(device.download_double(scaled), MatrixD(2.0 * device.download_double(moments))));
    }
};

QTEST_GUILESS_MAIN(TestHostFallback)
#include "test_host_fallback.moc"
