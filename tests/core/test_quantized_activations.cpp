// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/calibration_store.h"
#include "core/calibration/quantized_activations.h"
#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "tests/support/copying_backend.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <map>

using namespace rankscope;
namespace fs = std::filesystem;

namespace {

/// Tokens of very different size, one of zeros, one with an outlier.
Matrix uneven_tokens(Index tokens, Index channels)
{
    Matrix x = test::random_floats(tokens, channels, 11);
    for (Index token = 0; token < tokens; ++token)
        x.row(token) *= std::exp2(static_cast<float>(token % 9) - 4.0F);
    x.row(tokens / 2).setZero();
    x(tokens - 1, channels / 3) = 300.0F;
    return x;
}

} // namespace

class TestQuantizedActivations : public QObject {
    Q_OBJECT

private slots:
    void rounds_each_token_by_itself();
    void clips_the_largest();
    void backends_agree_with_float64_data();
    void backends_agree_with_float64();
    void cross_products_are_exact_enough();
    void covariances_are_those_of_the_tokens();
    void calibration_collects_covariances();
    void calibration_without_them_says_so();
    void refuses_impossible_grids();

private:
    std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

void TestQuantizedActivations::rounds_each_token_by_itself()
{
    MatrixD x(3, 4);
    x << 7.0, -3.4, 2.5, 3.5, // scale 1: ties to even
        0.0, 0.0, 0.0, 0.0,   //
        -0.7, 0.34, 0.06, 0.0;
    MatrixD expected(3, 4);
    expected << 7.0, -3.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0, -0.7, 0.3, 0.1, 0.0;
    const MatrixD y = quantize_tokens(x, ActivationQuantization{4, 1.0});
    QVERIFY((y - expected).cwiseAbs().maxCoeff() < 1e-15);
    const Buffer on_backend = quantized_activations(backend_->upload(Matrix(x.cast<float>())),
                                                    ActivationQuantization{4, 1.0}, *backend_);
    QVERIFY((backend_->download_double(on_backend) - expected).cwiseAbs().maxCoeff() < 1e-6);
}

void TestQuantizedActivations::clips_the_largest()
{
    // Clip ½ of 14: scale 1, codes −8 … 7.
    MatrixD x(2, 3);
    x << 14.0, 7.4, -1.0, -14.0, 7.6, 1.0;
    MatrixD expected(2, 3);
    expected << 7.0, 7.0, -1.0, -8.0, 7.0, 1.0;
    QCOMPARE(quantize_tokens(x, ActivationQuantization{4, 0.5}), expected);
    const Buffer on_backend = quantized_activations(backend_->upload(Matrix(x.cast<float>())),
                                                    ActivationQuantization{4, 0.5}, *backend_);
    QCOMPARE(backend_->download_double(on_backend), expected);
}

void TestQuantizedActivations::backends_agree_with_float64_data()
{
    QTest::addColumn<int>("tokens");
    QTest::addColumn<int>("channels");
    QTest::addColumn<int>("bits");
    QTest::newRow("one number") << 1 << 1 << 4;
    QTest::newRow("odd") << 37 << 53 << 4;
    QTest::newRow("two bits") << 16 << 100 << 2;
    QTest::newRow("eight bits") << 65 << 129 << 8;
}

void TestQuantizedActivations::backends_agree_with_float64()
{
    QFETCH(int, tokens);
    QFETCH(int, channels);
    QFETCH(int, bits);
    const Matrix x = uneven_tokens(tokens, channels);
    const ActivationQuantization grid{bits, 0.9};
    const MatrixD wanted = quantize_tokens(MatrixD(x.cast<double>()), grid);
    test::CopyingBackend device;
    for (Backend* backend : {backend_.get(), static_cast<Backend*>(&device)}) {
        const MatrixD y = backend->download_double(quantized_activations(backend->upload(x), grid, *backend));
        // A value on a tie in float64 may fall to the other side in float32: rare, and one step at most.
        Index other = 0;
        for (Index token = 0; token < y.rows(); ++token) {
            const double step =
                0.9 * static_cast<double>(x.row(token).cwiseAbs().maxCoeff()) / (std::exp2(bits - 1) - 1.0);
            const auto difference = (y.row(token) - wanted.row(token)).cwiseAbs();
            QVERIFY(difference.maxCoeff() <= step * 1.001);
            other += (difference.array() > 1e-4 * step).count();
        }
        QVERIFY2(other <= y.size() / 500, qPrintable(QString::number(other)));
    }
}

void TestQuantizedActivations::cross_products_are_exact_enough()
{
    for (const auto& [tokens, n] : {std::pair<Index, Index>{1, 1}, {300, 17}, {1025, 261}}) {
        const Matrix x = test::random_floats(tokens, n, 1);
        const Matrix y = test::random_floats(tokens, n, 2);
        for (const bool transposed : {false, true}) {
            const auto [left, right] =
                transposed ? std::pair{Matrix(x.transpose()), Matrix(y.transpose())} : std::pair{x, y};
            const MatrixD start = test::random_matrix(n, n, 3);
            const MatrixD wanted = 2.0 * x.cast<double>().transpose() * y.cast<double>() - 0.5 * start;
            test::CopyingBackend device;
            for (Backend* backend : {backend_.get(), static_cast<Backend*>(&device)}) {
                Buffer sum = backend->upload(start);
                backend->gemm(2.0, backend->upload(left), transposed ? Transpose::No : Transpose::Yes,
                              backend->upload(right), transposed ? Transpose::Yes : Transpose::No, -0.5, sum);
                QVERIFY(test::relative_difference(backend->download_double(sum), wanted) < 1e-6);
            }
        }
    }
}

void TestQuantizedActivations::covariances_are_those_of_the_tokens()
{
    const Matrix x = uneven_tokens(700, 45);
    const ActivationQuantization grid{4, 0.9};
    const Moments wanted = moments_of(x.cast<double>(), grid);
    QVERIFY(wanted.has_quantized_activations());
    QVERIFY(!moments_of(x.cast<double>(), {}).has_quantized_activations());
    CovarianceSums sums(45, true, *backend_);
    for (Index first = 0; first < 700; first += 350) {
        const Buffer part = backend_->upload(Matrix(x.middleRows(first, 350)));
        sums.add(part, quantized_activations(part, grid, *backend_), *backend_);
    }
    const auto near = [&](const Buffer& sum, const MatrixD& moment) {
        return test::relative_difference(backend_->download_double(sum) / 700.0, moment) < 1e-5;
    };
    QVERIFY(near(sums.xx(), wanted.hessian));
    QVERIFY(near(sums.xy(), wanted.sigma_xy));
    QVERIFY(near(sums.yy(), wanted.sigma_yy));
    QVERIFY(test::relative_difference(wanted.sigma_xy, MatrixD(wanted.sigma_xy.transpose())) > 1e-3);
}

void TestQuantizedActivations::calibration_collects_covariances()
{
    const auto model = test::sample_model();
    const fs::path text = test::sample_folder() / "calibration.txt";
    QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "cal";
    CalibrationOptions options;
    options.samples = 5;
    options.length = 64;
    options.activations = {4, 0.9};
    const Status made = calibrate(model, text, out, options, *backend_, silent_monitor());
    QVERIFY2(made, made ? "" : made.error().sentence().c_str());
    const auto store = CalibrationStore::open(out);
    QVERIFY(store);
    QCOMPARE((*store)->source().activations, options.activations);

    // The same tokens once more, all in float64.
    std::map<std::string, MatrixD> inputs;
    const auto tokens = tokenize_file(*model, text);
    QVERIFY(tokens);
    const auto windows = prefixed_windows(*tokens, 64, 64 - static_cast<Index>(tokens->prefix.size()), 5);
    QVERIFY(windows);
    auto states = HiddenStates::in_memory(5 * 64, model->config().hidden);
    QVERIFY(states);
    PassEvents events;
    events.input = [&](int, Index, const std::string& group, const Buffer& x,
                       std::span<const Index>) -> Status {
        MatrixD& all = inputs[group];
        const MatrixD part = backend_->download_double(x);
        all.conservativeResize(all.rows() + part.rows(), part.cols());
        all.bottomRows(part.rows()) = part;
        return {};
    };
    const auto weights = checkpoint_weights(model);
    QVERIFY(stream_blocks(*model, *weights, *windows, *states, events, *backend_, silent_monitor()));
    for (const std::string& group : (*store)->groups()) {
        const Moments wanted = moments_of(inputs[group], options.activations);
        const auto moments = (*store)->moments_with_activations(group);
        QVERIFY2(moments, group.c_str());
        QCOMPARE(moments->tokens, wanted.tokens);
        QCOMPARE(moments->activations, options.activations);
        QVERIFY2(test::relative_difference(moments->hessian, wanted.hessian) < 1e-5, group.c_str());
        QVERIFY2(test::relative_difference(moments->sigma_xy, wanted.sigma_xy) < 1e-3, group.c_str());
        QVERIFY2(test::relative_difference(moments->sigma_yy, wanted.sigma_yy) < 1e-3, group.c_str());
        QVERIFY(moments->sigma_yy == moments->sigma_yy.transpose());
        const auto plain = (*store)->moments(group);
        QVERIFY(plain && !plain->has_quantized_activations());
    }
}

void TestQuantizedActivations::calibration_without_them_says_so()
{
    QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "cal";
    CalibrationOptions options;
    options.samples = 1;
    options.length = 16;
    QVERIFY(calibrate(test::sample_model(), test::sample_folder() / "calibration.txt", out, options,
                      *backend_, silent_monitor()));
    const auto store = CalibrationStore::open(out);
    QVERIFY(store);
    const auto moments = (*store)->moments_with_activations((*store)->groups().front());
    QVERIFY(!moments);
    QVERIFY(moments.error().sentence().find("--quantized-activations") != std::string::npos);
}

void TestQuantizedActivations::refuses_impossible_grids()
{
    for (const ActivationQuantization grid :
         {ActivationQuantization{1, 0.9}, {9, 0.9}, {-4, 0.9}, {4, 0.0}, {4, 1.5}, {4, NAN}}) {
        const Status refused = check(grid);
        QVERIFY(!refused);
        QCOMPARE(refused.error().kind, ErrorKind::Usage);
    }
    QVERIFY(check(ActivationQuantization{4, 0.9}));
    QVERIFY(check(ActivationQuantization{8, 1.0}));
    CalibrationOptions options;
    options.activations.bits = 9;
    QTemporaryDir folder;
    const fs::path out = fs::path(folder.path().toStdString()) / "cal";
    QVERIFY(!calibrate(test::sample_model(), test::sample_folder() / "calibration.txt", out, options,
                       *backend_, silent_monitor()));
    QVERIFY(!fs::exists(out));
}

QTEST_GUILESS_MAIN(TestQuantizedActivations)
#include "test_quantized_activations.moc"
