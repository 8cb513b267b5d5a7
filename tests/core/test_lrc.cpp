// SPDX-License-Identifier: GPL-3.0-or-later
// LRC against its definition, written out with dense matrices in float64 (methods-joint §6).
#include "core/calibration/quantized_activations.h"
#include "core/methods/method.h"
#include "core/run/detail/layer_file.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_layer.h"

#include <QTemporaryDir>
#include <QtTest>

#include <Eigen/Cholesky>

#include <cmath>

using namespace rankscope;
using namespace rankscope::test;

namespace {

using Given = std::map<std::string, rankscope::ParameterValue, std::less<>>;

/// Σ_x and Σ_y with their damping, Σ_xy without.
struct Sigmas {
    MatrixD x, y, xy;

    explicit Sigmas(const Moments& moments, double rho = 0.01)
        : x(moments.hessian), y(moments.sigma_yy), xy(moments.sigma_xy)
    {
        for (MatrixD* sigma : {&x, &y})
            sigma->diagonal().array() += rho * sigma->diagonal().mean();
    }

    double objective(const MatrixD& weight, const MatrixD& q, const MatrixD& lr) const
    {
        const MatrixD d = weight - lr;
        return (d * x).cwiseProduct(d).sum() - 2.0 * (d * xy).cwiseProduct(q).sum()
               + (q * y).cwiseProduct(q).sum();
    }
};

/// Two million numbers of random directions would be too many: a few, each at three sizes.
template <class Objective>
double best_perturbed(const MatrixD& left, const MatrixD& right, const Objective& objective)
{
    double best = std::numeric_limits<double>::infinity();
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const MatrixD dl = random_matrix(left.rows(), left.cols(), seed, "left");
        const MatrixD dr = random_matrix(right.rows(), right.cols(), seed, "right");
        for (const double size : {1e-1, 1e-2, 1e-3})
            best = std::min(best, objective((left + size * left.norm() / dl.norm() * dl)
                                            * (right + size * right.norm() / dr.norm() * dr)));
    }
    return best;
}

} // namespace

class TestLrc : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    Result<Decomposition> try_lrc(const SampleLayer& layer, const Given& given)
    {
        const Method& method = *find_method("lrc");
        const auto parameters = Parameters::make(method.info(), given);
        if (!parameters)
            return parameters.error();
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        problem.keep_iterates = true;
        return method.decompose(problem, *parameters, *backend_, silent_monitor());
    }

    Decomposition lrc(const SampleLayer& layer, const Given& given)
    {
        auto result = try_lrc(layer, given);
        if (!result)
            qFatal("%s", result.error().sentence().c_str());
        return std::move(*result);
    }

    double error_of(const SampleLayer& layer, const Given& given)
    {
        return measure(layer.weight, lrc(layer, given), &layer.moments).relative_activation_error;
    }

private slots:
    void the_trace_tells_the_objective()
    {
        const SampleLayer layer = sample_layer({30, 44, 300, 2}, 1);
        const Sigmas sigmas(layer.moments);
        const MatrixD weight = layer.weight.cast<double>();
        const double whole = (weight * sigmas.x).cwiseProduct(weight).sum();
        const Decomposition d = lrc(layer, {{"rank", std::int64_t{5}}, {"iterations", std::int64_t{3}}});
        QCOMPARE(d.trace.size(), std::size_t{7});
        QCOMPARE(d.trace.front().stage, std::string("start"));
        for (std::size_t i = 1; i < d.trace.size(); ++i) {
            const IterationReport& report = d.trace[i];
            QCOMPARE(report.stage, std::string(i % 2 == 1 ? "Q" : "LR"));
            const MatrixD lr = report.left.cast<double>() * report.right.cast<double>();
            const double direct =
                std::sqrt(sigmas.objective(weight, report.quantized.cast<double>(), lr) / whole);
            QVERIFY(std::abs(report.relative_activation_error / direct - 1.0) < 1e-5);
            const double seen = (lr * sigmas.x).cwiseProduct(lr).sum();
            QVERIFY(std::abs(report.ratio_lrx - std::sqrt(seen / whole)) < 1e-4);
        }
    }

    void correction_is_the_best_of_its_rank()
    {
        const SampleLayer layer = sample_layer({26, 40, 300, 2}, 2);
        const Sigmas sigmas(layer.moments);
        const MatrixD weight = layer.weight.cast<double>();
        const Decomposition d = lrc(layer, {{"rank", std::int64_t{4}}});
        const MatrixD q = d.quantized.dequantize().cast<double>();
        const MatrixD left = d.low_rank.left.cast<double>();
        const MatrixD right = d.low_rank.right.cast<double>();
        const double own = sigmas.objective(weight, q, left * right);
        const double other =
            best_perturbed(left, right, [&](const MatrixD& lr) { return sigmas.objective(weight, q, lr); });
        QVERIFY2(other >= own * (1.0 - 1e-6), qPrintable(QString::number(other / own, 'g', 10)));
    }

    void start_is_the_best_for_a_free_q()
    {
        const SampleLayer layer = sample_layer({26, 40, 300, 2}, 3);
        const Sigmas sigmas(layer.moments);
        const MatrixD weight = layer.weight.cast<double>();
        const Decomposition d = lrc(layer, {{"rank", std::int64_t{4}}});
        const Eigen::LLT<Eigen::MatrixXd> factor((Eigen::MatrixXd(sigmas.y)));
        // The best Q that may be any matrix, for each L·R.
        const auto relaxed = [&](const MatrixD& lr) {
            const Eigen::MatrixXd wanted = ((weight - lr) * sigmas.xy).transpose();
            return sigmas.objective(weight, MatrixD(factor.solve(wanted).transpose()), lr);
        };
        const double whole = (weight * sigmas.x).cwiseProduct(weight).sum();
        const MatrixD left = d.trace[0].left.cast<double>();
        const MatrixD right = d.trace[0].right.cast<double>();
        const double own = relaxed(left * right);
        QVERIFY(std::abs(std::sqrt(own / whole) / d.trace[0].relative_activation_error - 1.0) < 1e-5);
        QVERIFY(best_perturbed(left, right, relaxed) >= own * (1.0 - 1e-6));
        QVERIFY(relative_difference(MatrixD(d.start_low_rank.cast<double>()), MatrixD(left * right)) < 1e-5);
    }

    void objective_falls_where_theory_says()
    {
        for (std::uint64_t seed = 10; seed < 16; ++seed) {
            for (const char* quantizer : {"gptq", "rtn"}) {
                const SampleLayer layer = sample_layer({40, 52, 300, 3}, seed);
                const Decomposition d = lrc(layer, {{"rank", std::int64_t{6}},
                                                    {"iterations", std::int64_t{5}},
                                                    {"quantizer", std::string(quantizer)}});
                double best = std::numeric_limits<double>::infinity();
                for (std::size_t i = 2; i < d.trace.size(); i += 2) {
                    QVERIFY(d.trace[i].relative_activation_error
                            <= d.trace[i - 1].relative_activation_error * (1.0 + 1e-9));
                    best = std::min(best, d.trace[i].relative_activation_error);
                }
                for (std::size_t i = 1; i < d.trace.size(); ++i) // no grid beats any matrix
                    QVERIFY(d.trace[i].relative_activation_error
                                >= d.trace[0].relative_activation_error * (1.0 - 1e-9)
                            || i > 2);
                const Sigmas sigmas(layer.moments);
                const MatrixD weight = layer.weight.cast<double>();
                const MatrixD lr = (d.low_rank.left * d.low_rank.right).cast<double>();
                const double own = sigmas.objective(weight, d.quantized.dequantize().cast<double>(), lr)
                                   / (weight * sigmas.x).cwiseProduct(weight).sum();
                QVERIFY(std::abs(std::sqrt(own) / best - 1.0) < 1e-5); // the best of all iterations
            }
        }
    }

    void tuning_never_raises_the_error()
    {
        const SampleLayer layer = sample_layer({40, 52, 300, 3}, 20);
        const Given plain{{"rank", std::int64_t{6}}};
        Given tuned = plain;
        tuned["tune_passes"] = std::int64_t{2};
        const Decomposition before = lrc(layer, plain);
        const Decomposition after = lrc(layer, tuned);
        QVERIFY(after.trace.back().relative_activation_error
                <= before.trace.back().relative_activation_error * (1.0 + 1e-9));
        QVERIFY(after.quantized.scales == before.quantized.scales);
    }

    void error_is_measured_on_the_tokens()
    {
        const SampleLayer layer = sample_layer({18, 31, 250, 2}, 21);
        for (const std::int64_t rank : {0, 3}) {
            const Decomposition d = lrc(layer, {{"rank", rank}});
            QCOMPARE(d.activations.bits, 4);
            const MatrixD x = layer.activations.cast<double>();
            const MatrixD y = quantize_tokens(MatrixD(x.transpose()), {4, 0.9}).transpose();
            const MatrixD weight = layer.weight.cast<double>();
            const MatrixD lr = (d.low_rank.left * d.low_rank.right).cast<double>();
            const MatrixD rest = weight * x - d.quantized.dequantize().cast<double>() * y - lr * x;
            const DecompositionQuality quality = measure(layer.weight, d, &layer.moments);
            QVERIFY(std::abs(quality.relative_activation_error / (rest.norm() / (weight * x).norm()) - 1.0)
                    < 1e-6);
        }
    }

    void large_layers_agree_with_all_eigenvectors()
    {
        const SampleLayer layer = sample_layer({900, 320, 700, 4}, 22);
        const Given given{{"rank", std::int64_t{32}}};
        Given exact = given;
        exact["solver"] = std::string("exact");
        const double fast = error_of(layer, given);
        const double slow = error_of(layer, exact);
        QVERIFY2(std::abs(fast / slow - 1.0) < 5e-3, qPrintable(QString::number(fast / slow, 'g', 8)));
    }

    void corrects_rounded_activations_and_little_else()
    {
        const SampleLayer layer = sample_layer({60, 64, 600, 3}, 23);
        const Given none{{"rank", std::int64_t{0}}};
        const Given tenth{{"rank", std::int64_t{6}}};
        Given zero_start = tenth;
        zero_start["start"] = std::string("zero");
        const double without = error_of(layer, none);
        const double gained = without - error_of(layer, tenth);
        QVERIFY2(gained > 0.15 * without, qPrintable(QString::number(gained / without)));
        QVERIFY(error_of(layer, zero_start) > error_of(layer, tenth));

        // Only weights rounded: the start is zero, and what is left is GPTQ with a correction afterwards.
        const auto weight_only = [](Given given) {
            given["activation_bits"] = std::int64_t{16};
            return given;
        };
        const Decomposition d = lrc(layer, weight_only(tenth));
        QVERIFY(!d.activations.active());
        QVERIFY(d.trace[0].left.size() == 0);
        const double gained_of_weights =
            error_of(layer, weight_only(none)) - error_of(layer, weight_only(tenth));
        QVERIFY2(gained_of_weights < 0.5 * gained,
                 qPrintable(QString("%1 %2").arg(gained_of_weights).arg(gained)));
    }

    void refuses_what_it_cannot_use()
    {
        SampleLayer layer = sample_layer({8, 20, 100, 1}, 24);
        const auto refused = [&](const Given& given, ErrorKind kind, const char* part) {
            const auto result = try_lrc(layer, given);
            QVERIFY(!result.has_value());
            QCOMPARE(result.error().kind, kind);
            QVERIFY2(result.error().sentence().find(part) != std::string::npos,
                     result.error().sentence().c_str());
        };
        const Given given{{"rank", std::int64_t{2}}};
        refused({{"rank", std::int64_t{2}}, {"activation_bits", std::int64_t{8}}}, ErrorKind::Usage,
                "8 bits");
        refused({{"rank", std::int64_t{2}}, {"activation_bits", std::int64_t{12}}}, ErrorKind::Usage,
                "2 to 8 bits");
        refused({{"rank", std::int64_t{2}}, {"clip", 0.8}}, ErrorKind::Usage, "clip 0.8");
        refused({{"rank", std::int64_t{9}}}, ErrorKind::Usage, "at most 8");
        const Moments sound = layer.moments;
        layer.moments.sigma_xy(1, 2) = std::numeric_limits<double>::quiet_NaN();
        refused(given, ErrorKind::BadInput, "not finite");
        layer.moments = sound;
        layer.moments.sigma_yy = MatrixD::Identity(3, 3);
        refused(given, ErrorKind::BadInput, "3 × 3");
        layer.moments = sound;
        layer.moments.sigma_yy(4, 4) = -1.0;
        refused(given, ErrorKind::BadInput, "negative");
        layer.moments = sound;
        layer.moments.activations = {};
        layer.moments.sigma_xy.resize(0, 0);
        layer.moments.sigma_yy.resize(0, 0);
        refused(given, ErrorKind::Usage, "--quantized-activations 4");
        Given weight_only = given; // which needs H alone
        weight_only["activation_bits"] = std::int64_t{16};
        QVERIFY(try_lrc(layer, weight_only).has_value());
    }

    void layer_file_keeps_the_rounding_of_activations()
    {
        const QTemporaryDir folder;
        const std::filesystem::path file = folder.path().toStdString() + "/layer.safetensors";
        const SampleLayer layer = sample_layer({8, 20, 100, 1}, 25);
        const Decomposition d = lrc(layer, {{"rank", std::int64_t{2}}});
        QVERIFY(write_layer_file(file, {"layer", true, "lrc", {}, false}, d));
        const auto read = read_layer_file(file);
        QVERIFY(read.has_value());
        QVERIFY(read->activations == d.activations);
        QVERIFY(read->reconstruct() == d.reconstruct());
    }
};

QTEST_GUILESS_MAIN(TestLrc)
#include "test_lrc.moc"
