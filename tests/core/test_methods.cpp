// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/linalg/weighted_low_rank.h"
#include "core/methods/method.h"
#include "core/plan/layer_spectrum.h"
#include "core/quantize/rounding.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_layer.h"

#include <QtTest>

#include <Eigen/SVD>

#include <cmath>
#include <numeric>

using namespace rankscope;
using namespace rankscope::test;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

struct Damped {
    Matrix weight;
    Moments moments;
};

Damped damped(const SampleLayer& layer, double rho = 0.01)
{
    Damped result{layer.weight, layer.moments};
    prepare_hessian(result.moments.hessian, result.weight, rho);
    return result;
}

Given joint_given(std::int64_t rank, std::int64_t iterations = 5)
{
    return {{"rank", rank},
            {"group", std::int64_t{16}},
            {"iterations", iterations},
            {"tune_passes", std::int64_t{0}}};
}

} // namespace

class TestMethods : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    Decomposition run(const std::string& id, const SampleLayer& layer, const Given& given,
                      bool keep_iterates = false)
    {
        const Method* method = find_method(id);
        const auto parameters = Parameters::make(method->info(), given);
        if (!parameters)
            qFatal("%s", parameters.error().sentence().c_str());
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        problem.keep_iterates = keep_iterates;
        auto result = method->decompose(problem, *parameters, *backend_, silent_monitor());
        if (!result)
            qFatal("%s", result.error().sentence().c_str());
        return std::move(*result);
    }

private slots:
    void reconstruct_is_q_plus_lr()
    {
        const SampleLayer layer = sample_layer({9, 21, 60, 1}, 1);
        const Decomposition d =
            run("svd_residual", layer, {{"rank", std::int64_t{3}}, {"group", std::int64_t{8}}});
        const Matrix expected = d.quantized.dequantize() + Matrix(d.low_rank.left * d.low_rank.right);
        QVERIFY(relative_difference(d.reconstruct(), expected) < 1e-6);
        Decomposition rank_only;
        rank_only.low_rank = d.low_rank;
        QVERIFY(relative_difference(rank_only.reconstruct(), Matrix(d.low_rank.left * d.low_rank.right))
                == 0.0);
        QCOMPARE(rank_only.bits_per_weight(), 16.0 * 3.0 * (9.0 + 21.0) / (9.0 * 21.0));
    }

    void factors_are_balanced()
    {
        const SampleLayer layer = sample_layer({12, 20, 60, 1}, 2);
        for (const char* id : {"svd_residual", "qera_exact", "odlri"}) {
            const Decomposition d = run(id, layer, {{"rank", std::int64_t{4}}, {"group", std::int64_t{8}}});
            for (Index i = 0; i < 4; ++i)
                QVERIFY(std::abs(d.low_rank.left.col(i).norm() / d.low_rank.right.row(i).norm() - 1.0F)
                        < 1e-4F);
        }
    }

    void quality_is_measured_with_undamped_moments()
    {
        const SampleLayer layer = sample_layer({15, 24, 300, 2}, 3);
        const Decomposition d =
            run("qera_exact", layer, {{"rank", std::int64_t{2}}, {"group", std::int64_t{8}}});
        const DecompositionQuality quality = measure(layer.weight, d, &layer.moments);
        const Matrix error = layer.weight - d.reconstruct();
        const double activation_error = (error * layer.activations).cast<double>().norm()
                                        / (layer.weight * layer.activations).cast<double>().norm();
        QVERIFY(std::abs(quality.relative_activation_error / activation_error - 1.0) < 1e-4);
        QVERIFY(std::abs(quality.relative_error - relative_difference(d.reconstruct(), layer.weight)) < 1e-6);
        const DecompositionQuality plain = measure(layer.weight, d, nullptr);
        QCOMPARE(plain.relative_activation_error, plain.relative_error);
        const DecompositionQuality nothing = measure(Matrix::Zero(3, 4), Decomposition{}, nullptr);
        QCOMPARE(nothing.relative_error, 0.0);
    }

    void correction_is_best_in_its_own_metric()
    {
        // For one Q and rank: QERA-exact has the least activation error of all, the plain one the least plain
        // error.
        const SampleLayer layer = sample_layer({20, 32, 300, 3}, 4);
        const Given given{{"rank", std::int64_t{4}}, {"group", std::int64_t{16}}, {"bits", std::int64_t{3}}};
        std::map<std::string, DecompositionQuality> quality;
        for (const char* id : {"svd_residual", "lqer", "qera_approx", "qera_exact"})
            quality[id] = measure(layer.weight, run(id, layer, given), &layer.moments);
        for (const auto& [id, measured] : quality) {
            QVERIFY(quality["qera_exact"].relative_activation_error
                    <= measured.relative_activation_error * (1.0 + 1e-6));
            QVERIFY(quality["svd_residual"].relative_error <= measured.relative_error * (1.0 + 1e-6));
        }
        QVERIFY(quality["qera_exact"].relative_activation_error
                < 0.9 * quality["svd_residual"].relative_activation_error);
    }

    void rank_and_scale_invariants_data()
    {
        QTest::addColumn<QString>("id");
        for (const char* id : {"svd_residual", "lqer", "qera_approx", "qera_exact", "caldera", "odlri"})
            QTest::newRow(id) << QString(id);
    }

    void rank_and_scale_invariants()
    {
        QFETCH(QString, id);
        const std::string name = id.toStdString();
        const SampleLayer layer = sample_layer({16, 28, 300, 2}, 5);
        Given given{{"group", std::int64_t{8}}, {"rank", std::int64_t{0}}, {"tune_passes", std::int64_t{0}}};
        const Decomposition zero = run(name, layer, given);
        QCOMPARE(zero.low_rank.rank(), Index{0});
        QVERIFY(zero.reconstruct() == zero.quantized.dequantize());
        given["rank"] = std::int64_t{16};
        const Decomposition full = run(name, layer, given);
        QVERIFY2(relative_difference(full.reconstruct(), layer.weight) < 1e-5,
                 qPrintable(QString::number(relative_difference(full.reconstruct(), layer.weight))));
        if (name == "caldera" || name == "odlri")
            return;
        SampleLayer louder = layer; // scaling H changes nothing
        louder.moments = moments_of_columns(layer.activations * 8.0F);
        given["rank"] = std::int64_t{4};
        QVERIFY(
            relative_difference(run(name, louder, given).reconstruct(), run(name, layer, given).reconstruct())
            < 1e-5);
    }

    void predicted_error_is_the_measured_one()
    {
        const SampleLayer layer = sample_layer({18, 26, 200, 2}, 6);
        UniformGrid grid;
        grid.bits = 3;
        grid.group = 8;
        const LayerSpectrum weighted =
            layer_spectrum(layer.weight, &layer.moments, grid, *backend_, silent_monitor());
        const LayerSpectrum plain = layer_spectrum(layer.weight, nullptr, grid, *backend_, silent_monitor());
        QCOMPARE(weighted.weighted.size(), Index{18});
        QCOMPARE(plain.weighted.size(), Index{0});
        for (const std::int64_t rank : {0, 1, 5, 17}) {
            const Given given{{"rank", rank},
                              {"group", std::int64_t{8}},
                              {"bits", std::int64_t{3}},
                              {"clip_search", std::string("none")}};
            const auto exact = measure(layer.weight, run("qera_exact", layer, given), &layer.moments);
            const auto svd = measure(layer.weight, run("svd_residual", layer, given), nullptr);
            QVERIFY(std::abs(weighted.predicted_error(rank) / exact.relative_activation_error - 1.0) < 1e-3);
            QVERIFY(std::abs(plain.predicted_error(rank) / svd.relative_error - 1.0) < 1e-3);
        }
        QCOMPARE(weighted.predicted_error(18), 0.0);
    }

    void spectrum_figures()
    {
        VectorD values(4);
        values << 3, 2, 1, 0;
        QCOMPARE(LayerSpectrum::tail_share(values, 1), 5.0 / 14.0);
        QCOMPARE(LayerSpectrum::tail_share(VectorD::Zero(3), 1), 0.0);
        QCOMPARE(LayerSpectrum::rank_for_energy(values, 0.9), Index{2});
        QCOMPARE(LayerSpectrum::rank_for_energy(values, 0.0), Index{0});
        QCOMPARE(summarize_spectrum(values).stable_rank, 14.0 / 9.0);
        QCOMPARE(summarize_spectrum(VectorD::Zero(3)).effective_rank, 0.0);
        QVERIFY(std::abs(summarize_spectrum(VectorD::Ones(5)).effective_rank - 5.0) < 1e-12);
    }

    void channel_profile_sees_a_hot_channel()
    {
        SampleLayer layer = sample_layer({10, 20, 100, 0}, 7);
        layer.activations.row(13) *= 50.0F;
        layer.moments = moments_of_columns(layer.activations);
        const ChannelProfile profile = channel_profile(layer.weight, &layer.moments);
        Index hottest = 0;
        profile.weighted_energy.maxCoeff(&hottest);
        QCOMPARE(hottest, Index{13});
        QVERIFY(std::abs(profile.weight_rms(3) - layer.weight.col(3).cast<double>().norm() / std::sqrt(10.0))
                < 1e-7);
        QCOMPARE(profile.weight_max_abs(3), static_cast<double>(layer.weight.col(3).cwiseAbs().maxCoeff()));
        QCOMPARE(channel_profile(layer.weight, nullptr).hessian_diagonal.size(), Index{0});
    }

    void low_rank_steps_never_raise_the_error_data()
    {
        QTest::addColumn<QString>("id");
        QTest::addColumn<QString>("key");
        QTest::addColumn<QString>("value");
        QTest::newRow("caldera, Q first") << "caldera"
                                          << "order"
                                          << "q_lr";
        QTest::newRow("caldera, LR first") << "caldera"
                                           << "order"
                                           << "lr_q";
        QTest::newRow("odlri, whitened") << "odlri"
                                         << "start"
                                         << "whitened";
        QTest::newRow("odlri, restricted") << "odlri"
                                           << "start"
                                           << "restricted";
        QTest::newRow("odlri, projection") << "odlri"
                                           << "start"
                                           << "projection";
        QTest::newRow("caldera, lattice") << "caldera"
                                          << "codebook"
                                          << "e8p";
        QTest::newRow("odlri, lattice") << "odlri"
                                        << "codebook"
                                        << "e8p";
        QTest::newRow("odlri, rotated grid") << "odlri"
                                             << "rht"
                                             << "true";
    }

    void low_rank_steps_never_raise_the_error()
    {
        QFETCH(QString, id);
        QFETCH(QString, key);
        QFETCH(QString, value);
        const SampleLayer layer = sample_layer({24, 40, 300, 3}, 8);
        Given given = joint_given(4, 8);
        given["early_stop"] = false;
        given[key.toStdString()] = value.toStdString();
        const Decomposition d = run(id.toStdString(), layer, given, true);
        const Damped problem = damped(layer);
        const double whole = objective(problem.weight, problem.moments.hessian);
        double best = 1e300;
        bool quantized = false;
        bool fitted = false;
        int half_steps = 0;
        for (std::size_t i = 0; i < d.trace.size(); ++i) {
            const IterationReport& report = d.trace[i];
            if (report.stage == "LR" && i > 0 && d.trace[i - 1].stage == "Q")
                QVERIFY(report.relative_activation_error
                        <= d.trace[i - 1].relative_activation_error * (1.0 + 1e-5));
            if (report.stage == "start")
                continue;
            ++half_steps;
            quantized |= report.stage == "Q";
            fitted |= report.stage == "LR";
            // What is logged is the error of the matrices that are logged.
            Matrix error = problem.weight;
            if (report.quantized.size() > 0)
                error -= report.quantized;
            if (report.left.size() > 0)
                error -= Matrix(report.left * report.right);
            const double expected = std::sqrt(objective(error, problem.moments.hessian) / whole);
            QVERIFY(std::abs(report.relative_activation_error / expected - 1.0) < 1e-3);
            if (quantized && fitted)
                best = std::min(best, report.relative_activation_error);
        }
        QCOMPARE(half_steps, 16);
        const double returned = measure(problem.weight, d, &problem.moments).relative_activation_error;
        QVERIFY2(returned <= best * (1.0 + 1e-4), qPrintable(QString("%1 %2").arg(returned).arg(best)));
    }

    void tuning_the_result_lowers_its_error()
    {
        const SampleLayer layer = sample_layer({24, 40, 300, 3}, 9);
        Given given = joint_given(4, 3);
        given["act_order"] = false;
        const Damped problem = damped(layer);
        const double before =
            measure(problem.weight, run("caldera", layer, given), &problem.moments).relative_activation_error;
        given["tune_passes"] = std::int64_t{3};
        const double after =
            measure(problem.weight, run("caldera", layer, given), &problem.moments).relative_activation_error;
        QVERIFY(after <= before);
    }

    void early_stop_saves_work_and_keeps_the_best()
    {
        const SampleLayer layer = sample_layer({16, 24, 200, 2}, 10);
        Given given = joint_given(3, 60);
        const Decomposition stopped = run("caldera", layer, given);
        given["early_stop"] = false;
        const Decomposition whole = run("caldera", layer, given);
        QCOMPARE(whole.trace.size(), std::size_t{120});
        QVERIFY(stopped.trace.size() < whole.trace.size());
        for (std::size_t i = 0; i < stopped.trace.size(); ++i)
            QCOMPARE(stopped.trace[i].relative_activation_error, whole.trace[i].relative_activation_error);
    }

    void whitened_start_with_all_channels_is_lr_first()
    {
        const SampleLayer layer = sample_layer({14, 22, 200, 2}, 11);
        Given given = joint_given(5, 1);
        given["k"] = std::int64_t{22};
        given["rho"] = 0.01;
        const Decomposition odlri = run("odlri", layer, given, true);
        Given first = joint_given(5, 1);
        first["order"] = std::string("lr_q");
        const Decomposition caldera = run("caldera", layer, first, true);
        QVERIFY(relative_difference(odlri.start_low_rank,
                                    caldera.trace.front().left * caldera.trace.front().right)
                < 1e-4);
    }

    void restricted_start_holds_the_outlier_columns()
    {
        const SampleLayer layer = sample_layer({14, 22, 200, 2}, 12);
        Given given = joint_given(5, 1);
        given["k"] = std::int64_t{3};
        given["start"] = std::string("restricted");
        const Decomposition d = run("odlri", layer, given, true);
        QCOMPARE(d.outlier_channels.size(), std::size_t{3});
        QVERIFY(std::is_sorted(d.outlier_channels.begin(), d.outlier_channels.end()));
        Index chosen = 0;
        for (Index j = 0; j < 22; ++j) {
            const bool outlier = std::find(d.outlier_channels.begin(), d.outlier_channels.end(), j)
                                 != d.outlier_channels.end();
            chosen += outlier;
            const auto difference = (d.start_low_rank.col(j) - layer.weight.col(j)).norm();
            if (outlier) // k ≤ r: exactly the columns
                QVERIFY(difference < 1e-4F * layer.weight.col(j).norm());
            else
                QVERIFY(d.start_low_rank.col(j).isZero());
            for (const Index o : d.outlier_channels)
                QVERIFY(outlier || layer.moments.hessian(o, o) >= layer.moments.hessian(j, j));
        }
        QCOMPARE(chosen, Index{3});
    }

    void outlier_start_lowers_the_scale_of_q()
    {
        const SampleLayer layer = sample_layer({64, 96, 600, 2}, 13);
        const Given given = joint_given(16, 1);
        const Decomposition zero = run("caldera", layer, given);
        const Decomposition odlri = run("odlri", layer, given);
        QCOMPARE(odlri.outlier_channels.size(), std::size_t{4}); // r/4
        QVERIFY(odlri.trace[1].quantization_scale < 0.95 * zero.trace[0].quantization_scale);
        QVERIFY(odlri.trace[1].relative_activation_error < zero.trace[0].relative_activation_error);
    }

    void dead_channels_take_no_outlier_place()
    {
        SampleLayer layer = sample_layer({10, 16, 200, 0}, 14);
        layer.activations *= 1e-3F; // far below the 1 that a dead channel gets
        layer.activations.row(2).setZero();
        layer.moments = moments_of_columns(layer.activations);
        Given given = joint_given(4, 2);
        given["k"] = std::int64_t{15};
        const Decomposition d = run("odlri", layer, given);
        QVERIFY(std::find(d.outlier_channels.begin(), d.outlier_channels.end(), 2)
                == d.outlier_channels.end());
        QVERIFY(d.quantized.dequantize().col(2).isZero());
    }

    void gptq_beats_nearest_and_order_helps()
    {
        double nearest = 0.0, plain = 0.0, ordered = 0.0, tuned = 0.0;
        for (std::uint64_t seed = 20; seed < 25; ++seed) {
            const SampleLayer layer = sample_layer({32, 64, 400, 4}, seed);
            Given given{{"bits", std::int64_t{3}}, {"group", std::int64_t{32}}};
            const auto error_of = [&](const char* id) {
                return measure(layer.weight, run(id, layer, given), &layer.moments).relative_activation_error;
            };
            nearest += error_of("rtn");
            given["act_order"] = false;
            given["tune_passes"] = std::int64_t{0};
            plain += error_of("gptq");
            given["act_order"] = true;
            ordered += error_of("gptq");
            given["tune_passes"] = std::int64_t{2};
            tuned += error_of("gptq");
        }
        QVERIFY2(plain < 0.9 * nearest && ordered < plain && tuned <= ordered,
                 qPrintable(QString("%1 %2 %3 %4").arg(nearest).arg(plain).arg(ordered).arg(tuned)));
    }

    void joint_methods_beat_corrections_at_two_bits()
    {
        const SampleLayer layer = sample_layer({48, 64, 500, 3}, 30);
        Given given{{"bits", std::int64_t{2}}, {"group", std::int64_t{32}}, {"rank", std::int64_t{8}}};
        const auto error_of = [&](const char* id) {
            return measure(layer.weight, run(id, layer, given), &layer.moments).relative_activation_error;
        };
        const double caldera = error_of("caldera");
        const double odlri = error_of("odlri");
        const double exact = error_of("qera_exact");
        QVERIFY(caldera < exact && odlri < exact);
    }

    void unknown_methods_and_parameters_are_named()
    {
        const auto method = require_method("gptqq");
        QVERIFY(!method.has_value());
        QCOMPARE(method.error().kind, ErrorKind::Usage);
        QVERIFY(method.error().message.find("gptq") != std::string::npos);
        const MethodInfo& info = find_method("odlri")->info();
        const auto unknown = Parameters::make(info, {{"ranks", std::int64_t{3}}});
        QVERIFY(!unknown.has_value());
        QVERIFY(unknown.error().message.find("rank, ") != std::string::npos);
        for (const auto& [key, value] :
             std::vector<std::pair<std::string, ParameterValue>>{{"bits", std::int64_t{1}},
                                                                 {"bits", std::string("four")},
                                                                 {"bits", 2.5},
                                                                 {"damp", -0.5},
                                                                 {"start", std::string("cold")},
                                                                 {"symmetric", std::string("maybe")}})
            QVERIFY2(!Parameters::make(info, {{key, value}}).has_value(), key.c_str());
    }

    void texts_are_parsed()
    {
        const MethodInfo& info = find_method("odlri")->info();
        const auto parsed = Parameters::make(info, {{"rank", std::string("8")},
                                                    {"damp", std::string("0.05")},
                                                    {"symmetric", std::string("true")},
                                                    {"k", 3.0}});
        QVERIFY(parsed.has_value());
        QCOMPARE(parsed->integer("rank"), std::int64_t{8});
        QCOMPARE(parsed->real("damp"), 0.05);
        QCOMPARE(parsed->flag("symmetric"), true);
        QCOMPARE(parsed->integer("k"), std::int64_t{3});
        QVERIFY(!Parameters::from_json(info, Json(Json::Array{})).has_value());
        QVERIFY(!Parameters::from_json(info, *Json::parse(R"({"rank": [1]})")).has_value());
    }

    void rank_beyond_the_matrix_names_both()
    {
        const SampleLayer layer = sample_layer({6, 9, 20, 0}, 40);
        const Method* method = find_method("caldera");
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "model.layers.0.mlp.up_proj";
        const auto parameters = Parameters::make(method->info(), {{"rank", std::int64_t{7}}});
        const auto result = method->decompose(problem, *parameters, *backend_, silent_monitor());
        QVERIFY(!result.has_value());
        QCOMPARE(result.error().kind, ErrorKind::Usage);
        const std::string sentence = result.error().sentence();
        QVERIFY(sentence.find("rank 7") != std::string::npos && sentence.find("6 × 9") != std::string::npos
                && sentence.find("up_proj") != std::string::npos);
    }

    void missing_or_wrong_moments_are_refused()
    {
        const SampleLayer layer = sample_layer({6, 9, 20, 0}, 41);
        const SampleLayer other = sample_layer({6, 8, 20, 0}, 41);
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.name = "layer";
        const auto run_with = [&](const char* id, const Given& given) {
            const Method* method = find_method(id);
            return method->decompose(problem, *Parameters::make(method->info(), given), *backend_,
                                     silent_monitor());
        };
        const Given rank{{"rank", std::int64_t{2}}};
        QCOMPARE(run_with("qera_exact", rank).error().kind, ErrorKind::Usage);
        QVERIFY(run_with("svd_residual", rank).has_value());
        QCOMPARE(run_with("svd_residual", {{"rank", std::int64_t{2}}, {"rounding", std::string("gptq")}})
                     .error()
                     .kind,
                 ErrorKind::Usage);
        problem.moments = &other.moments;
        QCOMPARE(run_with("gptq", {}).error().kind, ErrorKind::BadInput);
    }
};

QTEST_GUILESS_MAIN(TestMethods)
#include "test_methods.moc"
