// SPDX-License-Identifier: GPL-3.0-or-later
// What every registered method must keep, whatever it does inside. A new line in registry.cpp is tested by
// this file as it stands.
#include "core/base/thread_pool.h"
#include "core/compute/normal_float.h"
#include "core/methods/method.h"
#include "tests/support/sample_layer.h"

#include <QtTest>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>

using namespace rankscope;
using namespace rankscope::test;

using Given = std::map<std::string, rankscope::ParameterValue, std::less<>>;

Q_DECLARE_METATYPE(const rankscope::Method*)
Q_DECLARE_METATYPE(Given)

namespace {

using Clock = std::chrono::steady_clock;

/// Cancels at the n-th time it is asked, and remembers whether anything went on for long afterwards.
class CancelAt : public Monitor {
public:
    explicit CancelAt(int count) : left_(count) {}
    bool cancelled() const override { return left_.fetch_sub(1) <= 0; }
    int asked() const { return start_ - left_; }

private:
    mutable std::atomic<int> left_;
    int start_ = left_;
};

/// Cancels after a time.
class CancelAfter : public Monitor {
public:
    explicit CancelAfter(std::chrono::milliseconds time) : end_(Clock::now() + time) {}
    bool cancelled() const override { return Clock::now() >= end_; }
    double seconds_since() const { return std::chrono::duration<double>(Clock::now() - end_).count(); }

private:
    Clock::time_point end_;
};

/// Small values for the parameters that decide about time and shape, where a method has them.
Given small_given(const MethodInfo& info, std::int64_t rank)
{
    Given given;
    const Given wanted{{"group", std::int64_t{16}},
                       {"rank", rank},
                       {"iterations", std::int64_t{3}},
                       {"steps", std::int64_t{12}}};
    for (const auto& [name, value] : wanted)
        if (info.find(name))
            given[name] = value;
    return given;
}

/// The layer with its activations rounded as the method asks for.
SampleLayer with_fitting_moments(SampleLayer layer, const MethodInfo& info, const Given& given)
{
    const auto parameters = Parameters::make(info, given);
    const ActivationQuantization wanted =
        parameters ? activations_of(info, *parameters) : ActivationQuantization{};
    if (wanted.active())
        layer.moments = moments_of_columns(layer.activations, {wanted.bits, wanted.clip});
    return layer;
}

bool all_finite(const Decomposition& d)
{
    bool finite = d.quantized.scales.allFinite() && d.quantized.zeros.allFinite()
                  && d.low_rank.left.allFinite() && d.low_rank.right.allFinite()
                  && d.start_low_rank.allFinite() && std::isfinite(d.quantization_scale)
                  && std::isfinite(d.bits_per_weight());
    for (const IterationReport& report : d.trace)
        finite = finite && std::isfinite(report.relative_activation_error)
                 && std::isfinite(report.quantization_scale) && std::isfinite(report.ratio_qx)
                 && std::isfinite(report.ratio_lrx);
    return finite;
}

bool same_bytes(const Decomposition& a, const Decomposition& b)
{
    return a.quantized.codes == b.quantized.codes && a.quantized.scales == b.quantized.scales
           && a.quantized.zeros == b.quantized.zeros && a.low_rank.left == b.low_rank.left
           && a.low_rank.right == b.low_rank.right && a.transform.left_signs() == b.transform.left_signs()
           && a.transform.right_signs() == b.transform.right_signs()
           && a.outlier_channels == b.outlier_channels;
}

} // namespace

class TestEveryMethod : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();

    void add_methods()
    {
        QTest::addColumn<const Method*>("method");
        QTest::addColumn<Given>("variant");
        for (const Method* method : methods()) {
            const std::string& id = method->info().id;
            QTest::newRow(id.c_str()) << method << Given{};
            if (const ParameterInfo* codebook = method->info().find("codebook")) {
                for (const std::string& choice : codebook->choices) // the first is the default
                    if (choice != codebook->choices.front())
                        QTest::newRow((id + ", " + choice).c_str()) << method << Given{{"codebook", choice}};
            }
            if (method->info().find("rht"))
                QTest::newRow((id + ", rotated").c_str()) << method << Given{{"rht", std::string("true")}};
            if (method->info().find("factor_bits"))
                QTest::newRow((id + ", e8p factors, downdate").c_str())
                    << method
                    << Given{{"codebook", std::string("e8p")},
                             {"factor_bits", std::string("4")},
                             {"hessian_downdate", true}};
        }
    }

    static bool offers(const MethodInfo& info, const std::string& name,
                       const rankscope::ParameterValue& value)
    {
        const ParameterInfo* parameter = info.find(name);
        const auto* text = std::get_if<std::string>(&value);
        return parameter
               && (!text
                   || std::find(parameter->choices.begin(), parameter->choices.end(), *text)
                          != parameter->choices.end());
    }

    /// What the row's variant asks for where the test does not, as far as the method has it.
    static Given with_variant(const Method& method, Given given)
    {
        QFETCH(Given, variant);
        for (const auto& [name, value] : variant)
            if (offers(method.info(), name, value))
                given.try_emplace(name, value);
        return given;
    }

    Result<Decomposition> run(const Method& method, const SampleLayer& layer, const Given& given,
                              Monitor& monitor)
    {
        const auto parameters = Parameters::make(method.info(), with_variant(method, given));
        if (!parameters)
            return parameters.error();
        LayerProblem problem;
        problem.weight = backend_->upload(layer.weight);
        problem.moments = &layer.moments;
        problem.name = "layer";
        problem.keep_iterates = true;
        return method.decompose(problem, *parameters, *backend_, monitor);
    }

    Result<Decomposition> run(const Method& method, const SampleLayer& layer, const Given& given)
    {
        return run(method, layer, given, silent_monitor());
    }

    /// A result that any caller can use: right shape, finite, and stored form and dense form agree.
    void verify_usable(const Result<Decomposition>& result, const SampleLayer& layer)
    {
        QVERIFY2(result.has_value(), result ? "" : result.error().sentence().c_str());
        QVERIFY(all_finite(*result));
        const Matrix dense = result->reconstruct();
        QCOMPARE(dense.rows(), layer.weight.rows());
        QCOMPARE(dense.cols(), layer.weight.cols());
        QVERIFY(dense.allFinite());
        const QuantizedMatrix& q = result->quantized;
        Matrix rebuilt = Matrix::Zero(dense.rows(), dense.cols());
        if (q.codebook == Codebook::E8P) {
            QCOMPARE(q.cols(), dense.cols());
            rebuilt = q.dequantize();
        } else {
            rebuild_from_grid(q, rebuilt);
        }
        rebuilt += Matrix(result->low_rank.left * result->low_rank.right);
        rebuilt = result->transform.restored_weight(rebuilt, *backend_);
        const double norm = std::max(1e-30, dense.cast<double>().norm());
        QVERIFY((rebuilt - dense).cast<double>().norm() <= 1e-6 * norm);
    }

    static void rebuild_from_grid(const QuantizedMatrix& q, Matrix& rebuilt)
    {
        const Index width = q.empty() ? 1 : q.grid.group_width(rebuilt.cols());
        for (Index i = 0; i < q.codes.rows(); ++i) {
            for (Index j = 0; j < q.codes.cols(); ++j) {
                float level = static_cast<float>(q.codes(i, j));
                double low = q.grid.symmetric ? -std::ldexp(0.5, q.grid.bits)
                                              : -static_cast<double>(q.zeros(i, j / width));
                if (q.grid.levels == GridLevels::NormalFloat) {
                    low = 1.0 - std::ldexp(0.5, q.grid.bits);
                    const auto place = static_cast<std::size_t>(q.codes(i, j) - static_cast<int>(low));
                    QVERIFY(place < normal_float_levels(q.grid.bits).size());
                    level = normal_float_levels(q.grid.bits)[place];
                }
                const bool above_minimum = q.grid.levels == GridLevels::Kquant && !q.grid.symmetric;
                if (above_minimum)
                    low = 0.0;
                rebuilt(i, j) =
                    q.scales(i, j / width) * level - (above_minimum ? q.zeros(i, j / width) : 0.0F);
                QVERIFY(q.codes(i, j) >= low && q.codes(i, j) <= low + std::ldexp(1.0, q.grid.bits) - 1.0);
            }
        }
    }

private slots:
    void initTestCase() { set_thread_count(2); }

    void description_is_complete_data() { add_methods(); }
    void description_is_complete()
    {
        QFETCH(const Method*, method);
        const MethodInfo& info = method->info();
        QVERIFY(!info.title.empty() && !info.summary.empty() && !info.source.empty());
        QCOMPARE(find_method(info.id), method);
        QCOMPARE(info.has_low_rank, info.find("rank") != nullptr);
        std::set<std::string> names;
        for (const ParameterInfo& parameter : info.parameters) {
            QVERIFY2(names.insert(parameter.name).second, parameter.name.c_str());
            QVERIFY2(!parameter.title.empty() && parameter.help.ends_with('.'), parameter.name.c_str());
            QVERIFY2(Parameters::make(info, {{parameter.name, parameter.fallback}}).has_value(),
                     parameter.name.c_str());
        }
    }

    void parameters_survive_json_and_text_data() { add_methods(); }
    void parameters_survive_json_and_text()
    {
        QFETCH(const Method*, method);
        const MethodInfo& info = method->info();
        Given given = small_given(info, 5);
        if (info.find("damp"))
            given["damp"] = 0.1 + 0.2; // needs all its digits
        const auto parameters = Parameters::make(info, given);
        QVERIFY(parameters.has_value());
        const auto json = Json::parse(parameters->to_json().dump());
        QVERIFY(json.has_value());
        const auto from_json = Parameters::from_json(info, *json);
        QVERIFY(from_json.has_value());
        QVERIFY(*from_json == *parameters);
        Given texts;
        for (const auto& [name, value] : parameters->values())
            texts[name] = to_string(value);
        const auto from_texts = Parameters::make(info, texts);
        QVERIFY(from_texts.has_value());
        QVERIFY(*from_texts == *parameters);
    }

    void not_worse_than_nearest_rounding_data() { add_methods(); }
    void not_worse_than_nearest_rounding()
    {
        QFETCH(const Method*, method);
        if (!method->info().find("bits"))
            QSKIP("it keeps no Q: there are no equal bits");
        const Method& nearest = *find_method("rtn");
        for (const std::int64_t bits : {2, 4}) {
            const SampleLayer layer = sample_layer({48, 64, 400, 3}, static_cast<std::uint64_t>(bits));
            Given given = small_given(method->info(), 4);
            given["bits"] = bits;
            const auto result = run(*method, layer, given);
            QVERIFY(result.has_value());
            Given nearest_given{{"bits", bits}, {"group", std::int64_t{16}}};
            // On the same codebook: the row's, or the method's own.
            QFETCH(Given, variant);
            if (const ParameterInfo* codebook = method->info().find("codebook");
                codebook && !variant.contains("codebook")
                && offers(nearest.info(), "codebook", codebook->fallback))
                nearest_given["codebook"] = codebook->fallback;
            auto rounded = run(nearest, layer, nearest_given);
            QVERIFY(rounded.has_value());
            rounded->activations = result->activations; // on the same inputs
            const DecompositionQuality own = measure(layer.weight, *result, &layer.moments);
            const DecompositionQuality base = measure(layer.weight, *rounded, &layer.moments);
            // Its own objective: the output error where it sees activations, else the error of the weight.
            if (method->info().needs.hessian)
                QVERIFY(own.relative_activation_error <= base.relative_activation_error * (1.0 + 1e-6));
            else
                QVERIFY(own.relative_error <= base.relative_error * (1.0 + 1e-6));
        }
    }

    void threads_change_no_byte_data() { add_methods(); }
    void threads_change_no_byte()
    {
        QFETCH(const Method*, method);
        const SampleLayer layer = sample_layer({150, 130, 300, 3}, 3);
        const Given given = small_given(method->info(), 7);
        set_thread_count(1);
        const auto single = run(*method, layer, given);
        set_thread_count(2);
        const auto both = run(*method, layer, given);
        const auto again = run(*method, layer, given);
        QVERIFY(single.has_value() && both.has_value() && again.has_value());
        QVERIFY(same_bytes(*single, *both));
        QVERIFY(same_bytes(*again, *both));
    }

    void cancel_is_honored_data() { add_methods(); }
    void cancel_is_honored()
    {
        QFETCH(const Method*, method);
        const SampleLayer layer = sample_layer({40, 50, 100, 2}, 4);
        const Given given = small_given(method->info(), 3);
        CancelAt never(std::numeric_limits<int>::max());
        QVERIFY(run(*method, layer, given, never).has_value());
        QVERIFY2(never.asked() > 0, "the method never asks whether it is cancelled");
        // At the first question, in the middle, and at the last.
        for (const int count : {0, never.asked() / 2, never.asked() - 1}) {
            CancelAt monitor(count);
            QVERIFY_THROWS_EXCEPTION(Cancelled, static_cast<void>(run(*method, layer, given, monitor)));
        }
    }

    void cancel_is_heard_within_a_second_data() { add_methods(); }
    void cancel_is_heard_within_a_second()
    {
        QFETCH(const Method*, method);
        const SampleLayer layer = sample_layer({1024, 768, 16, 3}, 5);
        Given given = small_given(method->info(), 32);
        if (method->info().find("bits"))
            given["bits"] = std::int64_t{2};
        CancelAfter monitor(std::chrono::milliseconds(50));
        try {
            static_cast<void>(run(*method, layer, given, monitor));
            QSKIP("this method was done before it could be cancelled");
        } catch (const Cancelled&) {
            QVERIFY2(monitor.seconds_since() < 1.0, qPrintable(QString::number(monitor.seconds_since())));
        }
    }

    void broken_weights_are_refused_data() { add_methods(); }
    void broken_weights_are_refused()
    {
        QFETCH(const Method*, method);
        const Given given = small_given(method->info(), 2);
        for (const float broken :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            SampleLayer layer = sample_layer({5, 20, 40, 1}, 6);
            layer.weight(4, 19) = broken;
            const auto result = run(*method, layer, given);
            QVERIFY(!result.has_value());
            QCOMPARE(result.error().kind, ErrorKind::BadInput);
            QVERIFY(result.error().sentence().find("layer") != std::string::npos);
        }
        if (!method->info().needs.hessian)
            return;
        SampleLayer layer = sample_layer({5, 20, 40, 1}, 6);
        layer.moments.hessian(3, 4) = std::numeric_limits<double>::quiet_NaN();
        QVERIFY(!run(*method, layer, given).has_value());
    }

    void empty_weights_are_refused_data() { add_methods(); }
    void empty_weights_are_refused()
    {
        QFETCH(const Method*, method);
        for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 0}, {0, 4}, {4, 0}}) {
            SampleLayer layer;
            layer.weight = Matrix::Zero(rows, cols);
            layer.moments.hessian = MatrixD::Identity(cols, cols);
            layer.moments.mean_abs = layer.moments.max_abs = VectorD::Ones(cols);
            const auto result = run(*method, layer, small_given(method->info(), 0));
            QVERIFY(!result.has_value());
            QCOMPARE(result.error().kind, ErrorKind::BadInput);
        }
    }

    void odd_shapes_work_data() { add_methods(); }
    void odd_shapes_work()
    {
        QFETCH(const Method*, method);
        for (const auto& [rows, cols] :
             {std::pair<Index, Index>{1, 1}, {1, 37}, {37, 1}, {7, 45}, {45, 7}, {33, 17}, {64, 172}}) {
            const SampleLayer layer = sample_layer({rows, cols, 60, cols > 1 ? 1 : 0}, 7);
            const std::int64_t full = std::min(rows, cols);
            for (const std::int64_t rank : {std::int64_t{0}, std::int64_t{1}, full})
                verify_usable(run(*method, layer, small_given(method->info(), rank)), layer);
        }
    }

    void degenerate_input_has_defined_results_data() { add_methods(); }
    void degenerate_input_has_defined_results()
    {
        QFETCH(const Method*, method);
        const SampleLayer base = sample_layer({12, 20, 60, 1}, 8);
        SampleLayer layer = base;
        layer.weight.setZero();
        verify_usable(run(*method, layer, small_given(method->info(), 3)), layer);
        QVERIFY(run(*method, layer, small_given(method->info(), 3))->reconstruct().isZero());

        layer = base;
        layer.moments = moments_of_columns(Matrix::Zero(20, 5)); // nothing was ever active
        verify_usable(run(*method, layer, small_given(method->info(), 3)), layer);

        layer.moments = moments_of_columns(base.activations.leftCols(1)); // one token: rank 1
        verify_usable(run(*method, layer, small_given(method->info(), 12)), layer);

        Matrix activations = base.activations; // dead channels, and two that are the same
        activations.row(0).setZero();
        activations.row(19).setZero();
        activations.row(7) = activations.row(8);
        layer.moments = moments_of_columns(activations);
        verify_usable(run(*method, layer, small_given(method->info(), 5)), layer);
        const auto live = run(*method, layer, small_given(method->info(), 5));
        QVERIFY(measure(layer.weight, *live, &layer.moments).relative_activation_error < 0.7);

        layer = base; // constant rows, and a row of zeros
        layer.weight.row(0).setConstant(0.25F);
        layer.weight.row(1).setConstant(-3.0F);
        layer.weight.row(2).setZero();
        verify_usable(run(*method, layer, small_given(method->info(), 3)), layer);

        layer = base;
        layer.weight *= 1e-30F; // below the least scale
        verify_usable(run(*method, layer, small_given(method->info(), 3)), layer);
    }

    void groups_of_every_kind_work_data() { add_methods(); }
    void groups_of_every_kind_work()
    {
        QFETCH(const Method*, method);
        if (!method->info().find("group"))
            QSKIP("it has no groups");
        const SampleLayer layer = sample_layer({6, 22, 60, 1}, 11);
        const double least = method->info().find("group")->minimum; // 0 where each output has its own scale
        for (const std::int64_t group : {-1, 0, 1, 7, 22, 1000}) {
            if (static_cast<double>(group) < least)
                continue;
            Given given = small_given(method->info(), 2);
            given["group"] = group;
            verify_usable(run(*method, layer, given), layer);
        }
    }

    void indefinite_moments_have_a_result_or_a_sentence_data() { add_methods(); }
    void indefinite_moments_have_a_result_or_a_sentence()
    {
        QFETCH(const Method*, method);
        SampleLayer layer = sample_layer({12, 20, 60, 1}, 12);
        // Entries off the diagonal that no second moment has: eigenvalues far below zero.
        layer.moments.hessian(2, 3) = layer.moments.hessian(3, 2) = 50.0 * layer.moments.hessian(2, 2);
        const auto result = run(*method, layer, small_given(method->info(), 5));
        if (result) {
            verify_usable(result, layer);
        } else {
            QCOMPARE(result.error().kind, ErrorKind::BadInput);
            QVERIFY(!result.error().sentence().empty());
        }
    }

    void numbers_beyond_float_never_give_nan_data() { add_methods(); }
    void numbers_beyond_float_never_give_nan()
    {
        QFETCH(const Method*, method);
        SampleLayer layer = sample_layer({6, 10, 40, 1}, 9);
        layer.weight *= 1e38F / layer.weight.cwiseAbs().maxCoeff();
        layer.moments.hessian *= 1e30;
        const auto result = run(*method, layer, small_given(method->info(), 2));
        if (result) // either a sentence, or numbers
            QVERIFY(all_finite(*result));
        else
            QVERIFY(!result.error().message.empty());
    }

    void both_ends_of_every_range_work_data() { add_methods(); }
    void both_ends_of_every_range_work()
    {
        QFETCH(const Method*, method);
        const SampleLayer base = sample_layer({10, 18, 60, 2}, 10);
        for (const ParameterInfo& parameter : method->info().parameters) {
            std::vector<ParameterValue> values;
            switch (parameter.type) {
            case ParameterType::Flag:
                values = {true, false};
                break;
            case ParameterType::Integer:
                values = {static_cast<std::int64_t>(parameter.minimum),
                          static_cast<std::int64_t>(parameter.maximum)};
                break;
            case ParameterType::Real:
                values = {parameter.minimum, parameter.maximum};
                break;
            case ParameterType::Choice:
                values.assign(parameter.choices.begin(), parameter.choices.end());
                break;
            }
            for (const ParameterValue& value : values) {
                if (parameter.name == "steps" && value != parameter.fallback
                    && value != ParameterValue(std::int64_t{1}))
                    continue; // a million of them: more of the same
                Given given = small_given(method->info(), 4);
                given[parameter.name] = value;
                const SampleLayer layer = with_fitting_moments(base, method->info(), given);
                const auto result = run(*method, layer, given);
                if (parameter.name == "objective" && value == ParameterValue(std::string("block"))) {
                    QVERIFY(!result.has_value()); // a layer alone has no block
                    QCOMPARE(result.error().kind, ErrorKind::Usage);
                    continue;
                }
                const Given whole = with_variant(*method, given);
                const auto codebook = whole.find("codebook");
                const ParameterInfo* own_codebook = method->info().find("codebook");
                const ParameterValue used = codebook != whole.end() ? codebook->second
                                            : own_codebook          ? own_codebook->fallback
                                                                    : ParameterValue(std::string("uniform"));
                const bool few_bits = used == ParameterValue(std::string("e8p"))
                                      || used == ParameterValue(std::string("nf"))
                                      || used == ParameterValue(std::string("kquant"));
                const bool no_such_bits =
                    parameter.name == "bits" && value == ParameterValue(std::int64_t{8}) && few_bits;
                // Chains that make no sense: a layer alone simulates nothing, other codebooks have no step to
                // learn.
                const bool simulates = parameter.name == "simulate" && value != parameter.fallback;
                const bool learns_levels = parameter.name == "rounding"
                                           && used != ParameterValue(std::string("uniform"))
                                           && (value == ParameterValue(std::string("lrq"))
                                               || value == ParameterValue(std::string("flexround")));
                if (no_such_bits || simulates || learns_levels) {
                    QVERIFY(!result.has_value());
                    QCOMPARE(result.error().kind, ErrorKind::Usage);
                } else if (parameter.name == "rank"
                           && value == ParameterValue(static_cast<std::int64_t>(parameter.maximum))) {
                    QVERIFY(!result.has_value());
                    QCOMPARE(result.error().kind, ErrorKind::Usage);
                } else {
                    verify_usable(result, layer);
                }
            }
            if (parameter.type == ParameterType::Integer || parameter.type == ParameterType::Real) {
                QVERIFY(!Parameters::make(method->info(), {{parameter.name, parameter.minimum - 1.0}})
                             .has_value());
                QVERIFY(!Parameters::make(method->info(), {{parameter.name, parameter.maximum + 1.0}})
                             .has_value());
            }
        }
    }
};

QTEST_GUILESS_MAIN(TestEveryMethod)
#include "test_every_method.moc"
