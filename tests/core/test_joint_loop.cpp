// SPDX-License-Identifier: GPL-3.0-or-later
// The low-rank solver, the by-products that the joint loop reckons with, and its ablation axes.
#include "core/linalg/low_rank_solver.h"
#include "core/methods/method.h"
#include "core/quantize/lattice_rounding.h"
#include "core/quantize/quantized_factors.h"
#include "core/quantize/rounding.h"
#include "tests/support/sample_layer.h"
#include "tests/support/test_monitor.h"

#include <QtTest>

#include <algorithm>
#include <cmath>
#include <set>

using namespace rankscope;
using namespace rankscope::test;

using Given = std::map<std::string, rankscope::ParameterValue, std::less<>>;
Q_DECLARE_METATYPE(Given)

namespace {

/// The layer with its H damped as the methods do it.
struct Damped {
    explicit Damped(const SampleLayer& layer) : weight(layer.weight), hessian(layer.moments.hessian)
    {
        prepare_hessian(hessian, weight, 0.01);
    }
    Matrix weight;
    MatrixD hessian;
};

double relative_difference(const Matrix& a, const Matrix& b)
{
    return static_cast<double>((a - b).norm()) / std::max(1e-30, static_cast<double>(b.norm()));
}

} // namespace

class TestJointLoop : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    Decomposition run(const char* id, const SampleLayer& layer, const Given& given, std::uint64_t seed = 0,
                      Monitor& monitor = silent_monitor())
    {
        const Method& method = *find_method(id);
        const auto parameters = Parameters::make(method.info(), given);
        if (!parameters)
            qFatal("%s", parameters.error().sentence().c_str());
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        problem.seed = seed;
        problem.keep_iterates = true;
        auto result = method.decompose(problem, *parameters, *backend_, monitor);
        if (!result)
            qFatal("%s", result.error().sentence().c_str());
        return std::move(*result);
    }

    double objective_by(LowRankSolver& solver, const Matrix& a, const MatrixD& hessian)
    {
        const Buffer buffer = backend_->convert(backend_->upload(a), solver.precision());
        const LowRankBuffers factors = solver.solve(buffer, objective(a, hessian), silent_monitor());
        const Matrix product = backend_->download(factors.left) * backend_->download(factors.right);
        const double measured = objective(a - product, hessian);
        // What it says is what it found, and its products are those of its factors.
        const MatrixD wide = product.cast<double>();
        const double norm = (wide * hessian).cwiseProduct(wide).sum();
        if (std::abs(factors.tail - measured) > 1e-3 * measured
            || std::abs(factors.squared_norm - norm) > 1e-3 * norm)
            return std::numeric_limits<double>::quiet_NaN();
        return measured;
    }

private slots:
    void solvers_agree_data()
    {
        QTest::addColumn<int>("rows");
        QTest::addColumn<int>("cols");
        QTest::addColumn<int>("rank");
        QTest::addColumn<bool>("rounded");
        QTest::newRow("wide") << 288 << 420 << 24 << false;
        QTest::newRow("tall") << 500 << 300 << 16 << false;
        QTest::newRow("square") << 320 << 320 << 40 << false;
        QTest::newRow("rank 1") << 300 << 310 << 1 << false;
        QTest::newRow("flat: a rounding error") << 384 << 384 << 32 << true;
        QTest::newRow("flat and tall") << 600 << 320 << 48 << true;
    }

    void solvers_agree()
    {
        QFETCH(int, rows);
        QFETCH(int, cols);
        QFETCH(int, rank);
        QFETCH(bool, rounded);
        const SampleLayer layer = sample_layer({rows, cols, 900, 5}, 40);
        const Damped problem(layer);
        Matrix a = problem.weight;
        if (rounded) {
            const Buffer w = backend_->upload(a);
            UniformGrid grid;
            grid.bits = 2;
            a -= backend_->download(backend_->round_nearest(w, backend_->fit_grid(w, grid)).values);
        }
        const Buffer hessian = backend_->upload(problem.hessian);
        LowRankSolver exact(hessian, rows, rank, LowRankMethod::Exact, RandomStream(1), *backend_);
        LowRankSolver subspace(hessian, rows, rank, LowRankMethod::Subspace, RandomStream(1), *backend_);
        QCOMPARE(exact.precision(), Precision::Float64);
        QCOMPARE(subspace.precision(), Precision::Float32);
        for (int turn = 0; turn < 3; ++turn) { // from a random space, then from the last one
            const double least = objective_by(exact, a, problem.hessian);
            const double found = objective_by(subspace, a, problem.hessian);
            QVERIFY2(found >= least * (1.0 - 1e-5) && found <= least * 1.001,
                     qPrintable(QString("%1 %2").arg(found).arg(least)));
            a += 0.02F * sample_layer({rows, cols, 5, 0}, 41 + static_cast<std::uint64_t>(turn)).weight;
        }
    }

    void small_and_high_ranks_are_exact()
    {
        const Buffer small = backend_->upload(MatrixD(MatrixD::Identity(40, 40)));
        QCOMPARE(LowRankSolver(small, 30, 4, LowRankMethod::Subspace, RandomStream(1), *backend_).precision(),
                 Precision::Float64);
        const Buffer large = backend_->upload(MatrixD(MatrixD::Identity(300, 300)));
        QCOMPARE(
            LowRankSolver(large, 300, 150, LowRankMethod::Subspace, RandomStream(1), *backend_).precision(),
            Precision::Float64);
    }

    void a_matrix_of_low_rank_is_found()
    {
        const Damped problem(sample_layer({300, 320, 900, 3}, 50));
        const Matrix a = sample_layer({300, 6, 10, 0}, 51).weight * sample_layer({6, 320, 10, 0}, 52).weight;
        LowRankSolver solver(backend_->upload(problem.hessian), 300, 8, LowRankMethod::Subspace,
                             RandomStream(1), *backend_);
        const double whole = objective(a, problem.hessian);
        const LowRankBuffers factors = solver.solve(backend_->upload(a), whole, silent_monitor());
        QVERIFY(factors.tail <= 1e-6 * whole);
        QVERIFY(backend_->download(factors.left).allFinite()
                && backend_->download(factors.right).allFinite());
        const LowRankBuffers nothing =
            solver.solve(backend_->upload(Matrix(Matrix::Zero(300, 320))), 0.0, silent_monitor());
        QVERIFY(backend_->download(backend_->multiply(nothing.left, nothing.right)).isZero(1e-20F));
    }

    void sweeps_know_what_they_lose()
    {
        const Damped problem(sample_layer({70, 100, 400, 3}, 53));
        for (const bool block_order : {false, true}) {
            const auto lattice =
                LatticeFeedback::make(problem.hessian, block_order, *backend_, silent_monitor());
            QVERIFY(lattice.has_value());
            for (const int bits : {2, 4}) {
                const LatticeBuffers q =
                    lattice->round(backend_->upload(problem.weight), bits, *backend_, silent_monitor()).rounded;
                const double exact = objective(problem.weight - backend_->download(q.values), problem.hessian);
                QVERIFY2(std::abs(q.loss - exact) < 1e-4 * exact,
                         qPrintable(QString("%1 %2").arg(q.loss).arg(exact)));
            }
        }
    }

    void every_iterate_is_what_the_trace_says_data()
    {
        QTest::addColumn<QString>("id");
        QTest::addColumn<Given>("given");
        const Given base{{"rank", std::int64_t{20}},
                         {"iterations", std::int64_t{3}},
                         {"early_stop", false},
                         {"lplr_iterations", std::int64_t{3}}};
        const auto add = [&](const char* name, const char* id, const Given& more) {
            Given given = base;
            given.insert(more.begin(), more.end());
            QTest::newRow(name) << QString(id) << given;
        };
        add("zero start", "caldera", {});
        add("zero start, exact", "caldera", {{"solver", std::string("exact")}});
        add("LR first", "caldera", {{"order", std::string("lr_q")}});
        add("4-bit factors", "caldera", {{"factor_bits", std::string("4")}});
        add("8-bit factors", "caldera", {{"factor_bits", std::string("8")}});
        add("downdate", "caldera", {{"hessian_downdate", true}});
        add("lattice", "caldera", {{"codebook", std::string("e8p")}});
        add("NormalFloat", "caldera", {{"codebook", std::string("nf")}});
        add("outliers", "odlri", {});
        add("outliers, lattice, 4-bit factors", "odlri",
            {{"codebook", std::string("e8p")}, {"factor_bits", std::string("4")}});
    }

    void every_iterate_is_what_the_trace_says()
    {
        QFETCH(QString, id);
        QFETCH(Given, given);
        const SampleLayer layer = sample_layer({288, 304, 900, 4}, 54); // large enough for the subspace
        const Damped problem(layer);
        const Decomposition d = run(id.toUtf8().constData(), layer, given);
        const double whole = objective(problem.weight, problem.hessian);
        double best = 1e300;
        bool quantized = false;
        bool fitted = false;
        for (const IterationReport& report : d.trace) {
            Matrix error = problem.weight;
            if (report.quantized.size() > 0)
                error -= report.quantized;
            if (report.left.size() > 0)
                error -= Matrix(report.left * report.right);
            const double expected = std::sqrt(objective(error, problem.hessian) / whole);
            QVERIFY2(std::abs(report.relative_activation_error / expected - 1.0) < 2e-3,
                     qPrintable(QString("%1 %2").arg(report.relative_activation_error).arg(expected)));
            const auto share = [&](const Matrix& part) {
                return part.size() == 0 ? 0.0 : std::sqrt(objective(part, problem.hessian) / whole);
            };
            QVERIFY(std::abs(report.ratio_qx - share(report.quantized)) < 2e-3);
            if (report.left.size() > 0)
                QVERIFY(std::abs(report.ratio_lrx - share(report.left * report.right)) < 2e-3);
            quantized |= report.stage == "Q";
            fitted |= report.stage == "LR";
            if (quantized && fitted)
                best = std::min(best, report.relative_activation_error);
        }
        const double returned =
            std::sqrt(objective(problem.weight - d.reconstruct(), problem.hessian) / whole);
        QVERIFY2(returned <= best * (1.0 + 2e-3), qPrintable(QString("%1 %2").arg(returned).arg(best)));
    }

    void low_rank_steps_fall_and_solvers_lead_to_the_same_place()
    {
        const SampleLayer layer = sample_layer({300, 288, 900, 4}, 55);
        Given given{{"rank", std::int64_t{24}}, {"iterations", std::int64_t{4}}, {"early_stop", false}};
        const Decomposition subspace = run("caldera", layer, given);
        given["solver"] = std::string("exact");
        const Decomposition exact = run("caldera", layer, given);
        QCOMPARE(subspace.trace.size(), exact.trace.size());
        for (std::size_t i = 1; i < exact.trace.size(); i += 2) {
            QVERIFY(subspace.trace[i].relative_activation_error
                    <= subspace.trace[i - 1].relative_activation_error * (1.0 + 1e-4));
            QVERIFY(exact.trace[i].relative_activation_error
                    <= exact.trace[i - 1].relative_activation_error * (1.0 + 1e-6));
        }
        // The first L·R follows the same Q: its squared error agrees to 0.1 %, the error to half of that.
        QVERIFY(
            std::abs(subspace.trace[1].relative_activation_error / exact.trace[1].relative_activation_error
                     - 1.0)
            < 5e-4);
        QVERIFY(std::abs(subspace.trace.back().relative_activation_error
                             / exact.trace.back().relative_activation_error
                         - 1.0)
                < 0.02);
    }

    void starts_are_what_they_are_called()
    {
        const SampleLayer layer = sample_layer({40, 56, 300, 3}, 56);
        const Given given{{"rank", std::int64_t{6}}, {"iterations", std::int64_t{2}}};
        const auto with = [&](const char* name, const std::string& value) {
            Given changed = given;
            changed[name] = value;
            return changed;
        };
        const Decomposition zero = run("odlri", layer, with("start", "zero"));
        const Decomposition caldera = run("caldera", layer, given);
        QVERIFY(zero.reconstruct() == caldera.reconstruct());
        QVERIFY(zero.outlier_channels.empty());
        QCOMPARE(zero.trace.front().stage, std::string("Q"));

        const Decomposition first = run("odlri", layer, with("start", "lr_first"));
        const Decomposition order = run("caldera", layer, with("order", "lr_q"));
        QCOMPARE(first.trace.front().stage, std::string("start"));
        QVERIFY(
            relative_difference(first.start_low_rank, order.trace.front().left * order.trace.front().right)
            < 1e-5);

        const Decomposition plain = run("odlri", layer, with("start", "svd"));
        const LowRankBuffers svd = weighted_low_rank(backend_->upload(layer.weight), {}, 6, *backend_);
        QVERIFY(relative_difference(plain.start_low_rank,
                                    backend_->download(backend_->multiply(svd.left, svd.right)))
                < 1e-5);
    }

    void outliers_are_selected_as_asked()
    {
        SampleLayer layer = sample_layer({20, 32, 300, 3}, 57);
        layer.activations.row(9).setZero();
        layer.activations(9, 0) = 1000.0F; // one huge token
        layer.activations.row(4).setZero();
        layer.moments = moments_of_columns(layer.activations);
        layer.moments.hessian.row(9) *= 1e-3; // rare: small in the mean
        layer.moments.hessian.col(9) *= 1e-3;
        Given given{{"rank", std::int64_t{4}}, {"iterations", std::int64_t{1}}, {"k", std::int64_t{3}}};
        const auto outliers = [&](const char* selection, std::uint64_t seed) {
            given["selection"] = std::string(selection);
            return run("odlri", layer, given, seed).outlier_channels;
        };
        const auto holds = [](const std::vector<Index>& channels, Index channel) {
            return std::find(channels.begin(), channels.end(), channel) != channels.end();
        };
        QVERIFY(!holds(outliers("diag_h", 0), 9));
        QVERIFY(holds(outliers("max_abs", 0), 9));
        QCOMPARE(outliers("random", 5), outliers("random", 5));
        std::set<std::vector<Index>> drawn;
        for (std::uint64_t seed = 0; seed < 8; ++seed) {
            const auto channels = outliers("random", seed);
            QCOMPARE(channels.size(), std::size_t{3});
            QVERIFY(!holds(channels, 4)); // never active
            drawn.insert(channels);
        }
        QVERIFY(drawn.size() > 3);
    }

    void without_refinement_there_is_one_rounding()
    {
        const SampleLayer layer = sample_layer({40, 56, 300, 3}, 58);
        Given given{
            {"rank", std::int64_t{6}}, {"iterations", std::int64_t{0}}, {"tune_passes", std::int64_t{0}}};
        const Decomposition once = run("odlri", layer, given);
        QCOMPARE(once.trace.size(), std::size_t{2});
        QCOMPARE(once.trace[0].stage, std::string("start"));
        QCOMPARE(once.trace[1].stage, std::string("Q"));
        QVERIFY(relative_difference(once.low_rank.left * once.low_rank.right, once.start_low_rank) < 1e-5);
        given["factor_bits"] = std::string("4"); // then the stored start lies on the factors' grid
        const Decomposition rounded = run("odlri", layer, given);
        QVERIFY(relative_difference(rounded.low_rank.left * rounded.low_rank.right, rounded.start_low_rank)
                > 1e-4);
        QVERIFY(rounded.bits_per_weight() < once.bits_per_weight());

        const Decomposition alone =
            run("caldera", layer, {{"iterations", std::int64_t{0}}, {"rank", std::int64_t{6}}});
        QCOMPARE(alone.low_rank.rank(), Index{0});
        Given gptq{{"bits", std::int64_t{2}}};
        QVERIFY(alone.reconstruct() == run("gptq", layer, gptq).reconstruct());
        const Decomposition first =
            run("caldera", layer,
                {{"iterations", std::int64_t{0}}, {"rank", std::int64_t{6}}, {"order", std::string("lr_q")}});
        QCOMPARE(first.trace.size(), std::size_t{2});
        QCOMPARE(first.low_rank.rank(), Index{6});
        // Refinement never loses to its own first round.
        given = {{"rank", std::int64_t{6}}};
        QVERIFY(measure(layer.weight, run("odlri", layer, given), &layer.moments).relative_activation_error
                <= measure(layer.weight, once, &layer.moments).relative_activation_error);
    }

    void factors_stop_when_they_stall()
    {
        const Damped problem(sample_layer({60, 80, 400, 3}, 59));
        const Buffer w = backend_->upload(problem.weight);
        const Buffer hessian = backend_->upload(problem.hessian);
        FactorOptions options{4, true, 10, false}; // the loop's own count of rounds
        const double whole = quantized_low_rank(w, hessian, 8, options, *backend_, silent_monitor()).tail;
        options.early_stop = true;
        const double stopped = quantized_low_rank(w, hessian, 8, options, *backend_, silent_monitor()).tail;
        QVERIFY2(whole <= stopped && stopped < 1.2 * whole,
                 qPrintable(QString("%1 %2").arg(whole).arg(stopped)));
    }

    void few_tokens_are_told()
    {
        SampleLayer layer = sample_layer({12, 40, 30, 1}, 60);
        for (const char* id : {"gptq", "caldera", "odlri"}) {
            TestMonitor monitor;
            Given given;
            if (find_method(id)->info().find("rank"))
                given["rank"] = std::int64_t{3};
            const Decomposition d = run(id, layer, given, 0, monitor);
            QVERIFY(d.reconstruct().allFinite());
            QCOMPARE(monitor.warnings().size(), std::size_t{1});
            QVERIFY(monitor.warnings().front().find("30 tokens for 40 input channels") != std::string::npos);
        }
    }
};

QTEST_GUILESS_MAIN(TestJointLoop)
#include "test_joint_loop.moc"
