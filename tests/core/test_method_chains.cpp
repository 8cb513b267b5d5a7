// SPDX-License-Identifier: GPL-3.0-or-later
// Transform, rounding and correction one after the other; chains that make no sense are refused with the
// reason; and what is measured with rounded activations.
#include "core/evaluate/simulated_pass.h"
#include "core/evaluate/text_comparison.h"
#include "core/export/smoothed_checkpoint.h"
#include "core/methods/method.h"
#include "core/model/rotated_checkpoint.h"
#include "core/run/block_curves.h"
#include "core/run/run.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_model.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <fstream>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;

namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

Result<Decomposition> decomposed(const SampleLayer& layer, const char* method, const Given& given,
                                 Backend& backend)
{
    const Method& found = **require_method(method);
    const auto parameters = Parameters::make(found.info(), given);
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(layer.weight);
    problem.moments = &layer.moments;
    problem.name = "layer";
    return found.decompose(problem, *parameters, backend, silent_monitor());
}

PerplexityOptions short_windows()
{
    PerplexityOptions options;
    options.length = 128;
    return options;
}

} // namespace

class TestMethodChains : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir folder_;

    fs::path place(const char* name) const { return folder_.filePath(name).toStdString(); }

    Result<PerplexityResult> simulated(const std::shared_ptr<const Model>& model, const WeightSource& weights,
                                       const ActivationSimulation& simulation)
    {
        PerplexityOptions options = short_windows();
        options.simulation = std::make_shared<const ActivationSimulation>(simulation);
        return perplexity(model, weights, sample_folder() / "evaluation.txt", options, *backend_,
                          silent_monitor());
    }

    Plan block_plan(const Model& model, const char* setting = "*:steps=2")
    {
        auto plan =
            uniform_plan(model, "lrq", {{"objective", std::string("block")}, {"bits", std::int64_t{3}}}, 0);
        if (!plan || !apply_setting(*plan, setting))
            qFatal("no plan");
        return *plan;
    }

    Status learn(const std::shared_ptr<const Model>& model, const Plan& plan, const fs::path& folder)
    {
        RunOptions options;
        options.text = sample_folder() / "calibration.txt";
        options.samples = 8;
        options.length = 32;
        return Run::execute(model, plan, {}, folder, options, *backend_, silent_monitor());
    }

private slots:
    void corrections_follow_learned_roundings_data()
    {
        QTest::addColumn<QString>("method");
        QTest::addColumn<QString>("rounding");
        for (const char* method : {"svd_residual", "lqer", "qera_approx", "qera_exact"})
            for (const char* rounding : {"lrq", "flexround"})
                QTest::addRow("%s after %s", method, rounding) << method << rounding;
    }
    void corrections_follow_learned_roundings()
    {
        QFETCH(QString, method);
        QFETCH(QString, rounding);
        const SampleLayer layer = sample_layer({.out = 20, .in = 37}, 5);
        Given given{{"bits", std::int64_t{2}},
                    {"group", std::int64_t{0}},
                    {"rank", std::int64_t{0}},
                    {"steps", std::int64_t{150}},
                    {"learning_rate", 0.01}};
        const auto error = [&](const Given& values) {
            const auto result = decomposed(layer, qPrintable(method), values, *backend_);
            if (!result)
                qFatal("%s", result.error().sentence().c_str());
            return measure(layer.weight, *result, &layer.moments).relative_activation_error;
        };
        const double nearest = error(given);
        given["rounding"] = rounding.toStdString();
        const double learned = error(given);
        QVERIFY2(learned < nearest, qPrintable(QString("%1 %2").arg(learned).arg(nearest)));
        given["rank"] = std::int64_t{4};
        QVERIFY(method == "svd_residual" || error(given) < learned);
        given["rank"] = std::int64_t{20}; // of full rank, nothing is left
        QVERIFY(error(given) < 1e-4);
    }

    void roundings_that_cannot_be_learned_are_refused_data()
    {
        QTest::addColumn<QString>("method");
        QTest::addColumn<QString>("key");
        QTest::addColumn<QString>("value");
        QTest::addColumn<QString>("reason");
        QTest::newRow("codebook") << "qera_exact"
                                  << "codebook"
                                  << "nf"
                                  << "uniform grid";
        QTest::newRow("one scale") << "lqer"
                                   << "group"
                                   << "-1"
                                   << "one scale for a whole matrix";
        QTest::newRow("simulated") << "lrq"
                                   << "simulate"
                                   << "a8kv8"
                                   << "objective=block";
    }
    void roundings_that_cannot_be_learned_are_refused()
    {
        QFETCH(QString, method);
        QFETCH(QString, key);
        QFETCH(QString, value);
        QFETCH(QString, reason);
        Given given{{key.toStdString(), value.toStdString()}};
        if (method != "lrq")
            given["rounding"] = std::string("lrq");
        const auto made = Parameters::make((*require_method(method.toStdString()))->info(), given);
        QVERIFY(!made.has_value());
        QCOMPARE(made.error().kind, ErrorKind::Usage);
        QVERIFY2(made.error().sentence().find(reason.toStdString()) != std::string::npos,
                 made.error().sentence().c_str());
    }

    void rotated_models_are_not_taken_apart()
    {
        QVERIFY(write_rotated_model(sample_folder(), 1, place("rotated"), false));
        const auto model = Model::open(place("rotated"));
        QVERIFY(model.has_value());
        const auto learned = learn(*model, block_plan(**model), place("none"));
        QVERIFY(!learned.has_value());
        QCOMPARE(learned.error().kind, ErrorKind::Usage);
        QVERIFY(learned.error().sentence().find("rotat") != std::string::npos);
        QVERIFY(!fs::exists(place("none")));
        const auto weights = checkpoint_weights(*model);
        const auto measured = simulated(*model, *weights, {});
        QVERIFY(!measured.has_value() && measured.error().kind == ErrorKind::Usage);
        const auto smoothed = write_smoothed_checkpoint(
            **model,
            [](const SmoothingGroup& group) { return Result<VectorD>(VectorD::Ones(group.linears[0]->in)); },
            place("smoothed"), {}, silent_monitor());
        QVERIFY(!smoothed.has_value());
        QCOMPARE(smoothed.error().kind, ErrorKind::Usage);
        QVERIFY(!fs::exists(place("smoothed")));
    }

    void rows_of_a_block_descend_together()
    {
        const auto model = sample_model();
        Plan plan = block_plan(*model);
        QVERIFY(apply_setting(plan, "*.3.*up_proj:steps=5"));
        const auto learned = learn(model, plan, place("apart"));
        QVERIFY(!learned.has_value());
        QCOMPARE(learned.error().kind, ErrorKind::Usage);
        QVERIFY2(learned.error().sentence().find("steps is 5 here and 2") != std::string::npos,
                 learned.error().sentence().c_str());
    }

    void eight_bits_a_token_cost_little()
    {
        const auto model = sample_model();
        const auto weights = checkpoint_weights(model);
        const auto plain = perplexity(model, *weights, sample_folder() / "evaluation.txt", short_windows(),
                                      *backend_, silent_monitor());
        const auto rounded = simulated(model, *weights, {});
        QVERIFY(plain.has_value() && rounded.has_value());
        QVERIFY(rounded->perplexity != plain->perplexity);
        QVERIFY(std::abs(rounded->perplexity - plain->perplexity) < 0.02 * plain->perplexity);
        ActivationSimulation coarse;
        coarse.bits = 3;
        QVERIFY(simulated(model, *weights, coarse)->perplexity > 1.2 * plain->perplexity);
    }

    void static_ranges_come_from_a_text_or_the_run()
    {
        const auto model = sample_model();
        const auto weights = checkpoint_weights(model);
        ActivationSimulation simulation;
        simulation.static_ranges = true;
        const auto nothing = simulated(model, *weights, simulation);
        QVERIFY(!nothing.has_value());
        QCOMPARE(nothing.error().kind, ErrorKind::Usage);
        QVERIFY(nothing.error().sentence().find("--ranges-text") != std::string::npos);
        simulation.ranges_text = sample_folder() / "calibration.txt";
        simulation.ranges_samples = 8;
        const auto measured = simulated(model, *weights, simulation);
        QVERIFY(measured.has_value() && std::isfinite(measured->perplexity));
        // A run keeps the ranges that it was learned with: no text is needed then.
        QVERIFY(learn(model, block_plan(*model, "*:bits=8,steps=2,simulate=a8kv8-static"), place("static")));
        const auto curves = read_block_curves(place("static"));
        QVERIFY(curves.has_value());
        QCOMPARE(curves->size(), static_cast<std::size_t>(model->config().blocks));
        ActivationSimulation kept;
        kept.static_ranges = true;
        for (const BlockCurve& curve : *curves) {
            QCOMPARE(curve.ranges.size(), std::size_t{4});
            QVERIFY(curve.best().training <= curve.points.front().training);
            kept.kept[curve.block] = curve.ranges;
        }
        const auto run = Run::open(place("static"));
        const auto learned = run_weights(model, *run);
        const auto again = simulated(model, *learned, kept);
        QVERIFY(again.has_value());
        QVERIFY(std::abs(again->perplexity - measured->perplexity) < 0.05 * measured->perplexity);
        for (auto& [role, range] : kept.kept[2])
            range = {0.0, 0.0}; // nothing gets through, and nothing breaks
        const auto empty = simulated(model, *learned, kept);
        QVERIFY(empty.has_value() && std::isfinite(empty->perplexity));
        QVERIFY(empty->perplexity > again->perplexity);
    }

    void inputs_are_not_rounded_twice()
    {
        const auto model = sample_model();
        const auto weights = with_quantized_activations(checkpoint_weights(model), {4, 0.9});
        const auto measured = simulated(model, *weights, {});
        QVERIFY(!measured.has_value());
        QCOMPARE(measured.error().kind, ErrorKind::Usage);
    }

    void the_original_stays_as_it_is()
    {
        const auto model = sample_model();
        const auto weights = checkpoint_weights(model);
        PerplexityOptions options = short_windows();
        options.simulation = std::make_shared<const ActivationSimulation>();
        const auto both =
            compare_on_text({model, weights.get()}, {model, weights.get()},
                            sample_folder() / "evaluation.txt", options, *backend_, silent_monitor());
        QVERIFY(both.has_value());
        const auto plain = perplexity(model, *weights, sample_folder() / "evaluation.txt", short_windows(),
                                      *backend_, silent_monitor());
        QVERIFY(std::abs(both->original.perplexity - plain->perplexity) < 1e-6 * plain->perplexity);
        QVERIFY(both->divergence.mean_kl > 0.0);
    }

    void broken_curves_are_refused_data()
    {
        QTest::addColumn<QString>("content");
        QTest::newRow("no JSON") << "{";
        QTest::newRow("another format") << R"({"format":"rankscope.plan"})";
        const QString whole =
            R"({"format":"rankscope.curve","block":0,"best_step":0,"learning_rate":1,"halvings":0,"curve":[%1]%2})";
        QTest::newRow("no points") << whole.arg("", "");
        QTest::newRow("half a range") << whole.arg(R"({"step":0,"training":1})", R"(,"ranges":{"q":[1]})");
    }
    void broken_curves_are_refused()
    {
        QFETCH(QString, content);
        const fs::path run = place("broken");
        fs::create_directories(run / "curves");
        std::ofstream(run / "curves" / "000.json") << content.toStdString();
        const auto curves = read_block_curves(run);
        QVERIFY(!curves.has_value());
        QCOMPARE(curves.error().kind, ErrorKind::BadInput);
        QVERIFY(curves.error().sentence().find("000.json") != std::string::npos);
    }
};

QTEST_GUILESS_MAIN(TestMethodChains)
#include "test_method_chains.moc"
