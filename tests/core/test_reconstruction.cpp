// SPDX-License-Identifier: GPL-3.0-or-later
// Learning how weights round: gradients of whole blocks, training of layers and blocks, runs that learn.
#include "core/methods/block_reconstruction.h"
#include "core/methods/method.h"
#include "core/model/model.h"
#include "core/run/run.h"
#include "tests/support/numbers.h"
#include "tests/support/sample_layer.h"
#include "tests/support/sample_model.h"
#include "tests/support/sample_run.h"
#include "tests/support/test_monitor.h"
#include "tests/support/test_paths.h"

#include <QTemporaryDir>
#include <QtTest>

#include <cmath>
#include <cstring>

using namespace rankscope;
using namespace rankscope::test;
namespace fs = std::filesystem;
using Role = LinearRole;

namespace {

/// What a block of a test is made of; small and odd.
struct BlockCase {
    bool gate = true;
    bool layer_norm = false;
    bool biases = false;
    bool parallel = false;
    bool inner_norms = false; ///< of heads and of results
    Index window = 0;
    double cap = 0.0;
    Activation activation = Activation::Silu;
};

struct TestBlock {
    DifferentiableBlock block;
    BlockWeights weights;
};

constexpr Index k_hidden = 10;
constexpr Index k_heads = 4;
constexpr Index k_kv_heads = 2;
constexpr Index k_head = 6;
constexpr Index k_inner = 14;

Norm norm_of(Index width, const char* name, bool layer_norm, Backend& backend)
{
    const MatrixD gain = random_matrix(1, width, 1, name).array() * 0.2 + 1.0;
    const Buffer bias = layer_norm ? backend.upload(random_matrix(1, width, 2, name)) : Buffer{};
    return Norm(backend.upload(gain), bias, 1e-5);
}

TestBlock make_block(const BlockCase& of, Backend& backend)
{
    BlockDefinition block;
    block.heads = k_heads;
    block.kv_heads = k_kv_heads;
    block.head_dim = k_head;
    block.score_cap = of.cap;
    block.traits.activation = of.activation;
    block.traits.parallel_residual = of.parallel;
    block.traits.attention_scale = 0.4;
    block.traits.window = of.window;
    block.rotation.frequencies = {1.0, 0.3, 0.1};
    block.attention_norm = norm_of(k_hidden, "attention", of.layer_norm, backend);
    block.mlp_norm = norm_of(k_hidden, "mlp", of.layer_norm, backend);
    if (of.inner_norms) {
        block.query_norm = norm_of(k_head, "query", false, backend);
        block.key_norm = norm_of(k_head, "key", false, backend);
        block.attention_result_norm = norm_of(k_hidden, "attention result", false, backend);
        block.mlp_result_norm = norm_of(k_hidden, "mlp result", false, backend);
    }
    const std::tuple<Role, Index, Index> shapes[] = {
        {Role::Query, k_heads * k_head, k_hidden},
        {Role::Key, k_kv_heads * k_head, k_hidden},
        {Role::Value, k_kv_heads * k_head, k_hidden},
        {Role::Output, k_hidden, k_heads * k_head},
        {Role::Gate, k_inner, k_hidden},
        {Role::Up, k_inner, k_hidden},
        {Role::Down, k_hidden, k_inner},
    };
    BlockWeights weights;
    for (const auto& [role, out, in] : shapes) {
        if (role == Role::Gate && !of.gate)
            continue;
        const std::string name(short_name(role));
        weights[role] = backend.upload(
            MatrixD(random_matrix(out, in, 3, name) * (1.5 / std::sqrt(static_cast<double>(in)))));
        if (of.biases)
            block.biases[role] = backend.upload(random_matrix(1, out, 4, name));
    }
    return {DifferentiableBlock(std::move(block)), std::move(weights)};
}

/// A sample layer on a grid of 3 bits, one scale an output.
LearnedLinear make_linear(const SampleLayer& layer, LearnedKind kind, Backend& backend)
{
    UniformGrid grid;
    grid.bits = 3;
    grid.group = 0;
    const Buffer weight = backend.upload(layer.weight);
    return LearnedLinear(weight, backend.fit_grid(weight, grid), kind, 6, RandomStream(1, "U"), backend);
}

MatrixD golden_tensor(const CheckpointReader& reader, const std::string& name)
{
    auto view = reader.view(name);
    if (!view || view->dtype != DType::F64)
        qFatal("no float64 tensor %s", name.c_str());
    const Index count = element_count(view->shape);
    const Index width = view->shape.back();
    MatrixD matrix(count / width, width);
    std::memcpy(matrix.data(), view->bytes.data(), view->bytes.size());
    return matrix;
}

} // namespace

Q_DECLARE_METATYPE(BlockCase)

class TestReconstruction : public QObject {
    Q_OBJECT

    std::unique_ptr<Backend> backend_ = make_cpu_backend();
    QTemporaryDir folder_;

    fs::path place(const char* name) const { return folder_.filePath(name).toStdString(); }

    Plan block_plan(const Model& model, std::string_view method, std::int64_t steps)
    {
        auto plan = uniform_plan(model, method,
                                 {{"objective", std::string("block")},
                                  {"bits", std::int64_t{3}},
                                  {"steps", steps},
                                  {"learning_rate", 0.003}},
                                 7);
        if (!plan)
            qFatal("%s", plan.error().sentence().c_str());
        return *plan;
    }

    static RunOptions block_options()
    {
        RunOptions options;
        options.text = sample_folder() / "calibration.txt";
        options.samples = 16;
        options.length = 32;
        return options;
    }

private slots:
    void block_gradients_data()
    {
        QTest::addColumn<BlockCase>("of");
        QTest::newRow("llama") << BlockCase{};
        BlockCase phi;
        phi.gate = false;
        phi.layer_norm = phi.biases = phi.parallel = true;
        phi.activation = Activation::GeluTanh;
        QTest::newRow("parallel, LayerNorm, biases, no gate") << phi;
        BlockCase gemma;
        gemma.inner_norms = true;
        gemma.window = 3;
        gemma.cap = 2.0;
        gemma.activation = Activation::Gelu;
        QTest::newRow("norms of heads and results, window, cap") << gemma;
    }
    void block_gradients()
    {
        QFETCH(BlockCase, of);
        TestBlock made = make_block(of, *backend_);
        const Index length = 5;
        const MatrixD x = random_matrix(2 * length, k_hidden, 5, "x");
        const MatrixD dy = random_matrix(2 * length, k_hidden, 5, "dy");
        BlockTape tape;
        static_cast<void>(
            made.block.forward(backend_->upload(x), length, made.weights, {}, &tape, *backend_));
        const BlockGradient gradient =
            made.block.backward(backend_->upload(dy), made.weights, tape, *backend_);
        const auto loss = [&](const MatrixD& input, const BlockWeights& weights) {
            const Buffer y =
                made.block.forward(backend_->upload(input), length, weights, {}, nullptr, *backend_);
            return backend_->download_double(y).cwiseProduct(dy).sum();
        };
        const auto verify = [&](const MatrixD& at, const MatrixD& actual, const auto& loss_of) {
            MatrixD expected(at.rows(), at.cols());
            MatrixD moved = at;
            for (Index i = 0; i < at.size(); ++i) {
                const double step = 1e-5;
                moved.data()[i] = at.data()[i] + step;
                const double above = loss_of(moved);
                moved.data()[i] = at.data()[i] - step;
                expected.data()[i] = (above - loss_of(moved)) / (2.0 * step);
                moved.data()[i] = at.data()[i];
            }
            QVERIFY2(relative_difference(actual, expected) < 1e-7,
                     qPrintable(QString::number(relative_difference(actual, expected))));
        };
        verify(x, backend_->download_double(gradient.dx),
               [&](const MatrixD& moved) { return loss(moved, made.weights); });
        for (const auto& [role, weight] : made.weights)
            verify(backend_->download_double(weight), backend_->download_double(gradient.weights.at(role)),
                   [&, at = role](const MatrixD& moved) {
                       BlockWeights weights = made.weights;
                       weights[at] = backend_->upload(moved);
                       return loss(x, weights);
                   });
        const BlockGradient alone =
            made.block.backward(backend_->upload(dy), made.weights, tape, *backend_, InputGradient::No);
        QVERIFY(alone.dx.empty() && alone.attention_gain.empty());
        for (const auto& [role, weight] : gradient.weights)
            QCOMPARE(backend_->download_double(alone.weights.at(role)), backend_->download_double(weight));
    }

    void golden_gradients_in_float64_data()
    {
        QTest::addColumn<QString>("name");
        for (const char* name : {"block_grad_0", "block_grad_1"})
            QTest::newRow(name) << QString(name);
    }
    void golden_gradients_in_float64()
    {
        QFETCH(QString, name);
        const auto shared = shared_folder();
        if (!shared)
            QSKIP(k_no_shared);
        const fs::path base = *shared / "golden" / "learned" / name.toStdString();
        const auto json = Json::read(fs::path(base).replace_extension(".json"));
        auto reader = CheckpointReader::open(fs::path(base).replace_extension(".safetensors"));
        QVERIFY(json.has_value() && reader.has_value());
        const Json& given = (*json)["parameters"];
        BlockDefinition definition;
        definition.heads = given["heads"].integer();
        definition.kv_heads = given["kv_heads"].integer();
        definition.head_dim = given["head_dim"].integer();
        definition.traits.attention_scale = 1.0 / std::sqrt(static_cast<double>(definition.head_dim));
        for (Index i = 0; i < definition.head_dim; i += 2)
            definition.rotation.frequencies.push_back(std::pow(
                given["theta"].number(), -static_cast<double>(i) / static_cast<double>(definition.head_dim)));
        const auto tensor = [&](const std::string& key) { return golden_tensor(**reader, key); };
        definition.attention_norm = Norm(backend_->upload(tensor("input_norm")), {}, given["eps"].number());
        definition.mlp_norm = Norm(backend_->upload(tensor("post_norm")), {}, given["eps"].number());
        const std::pair<Role, const char*> linears[] = {{Role::Query, "q_proj"},   {Role::Key, "k_proj"},
                                                        {Role::Value, "v_proj"},   {Role::Output, "o_proj"},
                                                        {Role::Gate, "gate_proj"}, {Role::Up, "up_proj"},
                                                        {Role::Down, "down_proj"}};
        BlockWeights weights;
        for (const auto& [role, key] : linears)
            weights[role] = backend_->upload(tensor(key));
        const DifferentiableBlock block(std::move(definition));
        BlockTape tape;
        const auto shape = (*reader)->find("x")->shape;
        const Buffer y =
            block.forward(backend_->upload(tensor("x")), shape[1], weights, {}, &tape, *backend_);
        const BlockGradient gradient =
            block.backward(backend_->upload(tensor("dy")), weights, tape, *backend_);
        const auto deviation = [&](const Buffer& actual, const std::string& key) {
            return relative_difference(backend_->download_double(actual), tensor("expect." + key));
        };
        QVERIFY(deviation(y, "y") < 1e-10);
        QVERIFY(deviation(gradient.dx, "dx") < 1e-10);
        QVERIFY(deviation(gradient.attention_gain, "grad.input_norm") < 1e-10);
        QVERIFY(deviation(gradient.mlp_gain, "grad.post_norm") < 1e-10);
        for (const auto& [role, key] : linears)
            QVERIFY2(deviation(gradient.weights.at(role), "grad." + std::string(key)) < 1e-10, key);
    }

    void block_is_the_models()
    {
        const auto model = sample_model();
        const auto weights = checkpoint_weights(model);
        for (int number = 0; number < static_cast<int>(model->config().blocks); ++number) {
            const auto block = DifferentiableBlock::load(*model, number, *backend_);
            const auto reference = TransformerBlock::load(*model, *weights, number, *backend_);
            QVERIFY(block.has_value() && reference.has_value());
            BlockWeights dense;
            for (const BlockPart& part : block_parts(*model, number))
                dense[part.role] = backend_->upload(*model->weight(*part.layer));
            const Buffer x = backend_->upload(random_floats(2 * 9, model->config().hidden, 3));
            Buffer expected = backend_->copy(x);
            reference->forward(expected, 9, *backend_);
            const Buffer y = block->forward(x, 9, dense, {}, nullptr, *backend_);
            // The model multiplies with packed weights: sums in another order.
            QVERIFY(relative_difference(backend_->download(y), backend_->download(expected)) < 2e-6);
        }
    }

    void layers_learn_data()
    {
        QTest::addColumn<int>("kind");
        QTest::newRow("lrq") << static_cast<int>(LearnedKind::Lrq);
        QTest::newRow("flexround") << static_cast<int>(LearnedKind::FlexRound);
    }
    void layers_learn()
    {
        QFETCH(int, kind);
        const SampleLayer layer = sample_layer({45, 37, 300, 2}, 1);
        LearnedLinear linear = make_linear(layer, static_cast<LearnedKind>(kind), *backend_);
        const LayerLoss loss{backend_->upload(Matrix(layer.moments.hessian.cast<float>())), {}, 0.0};
        ReconstructionOptions options;
        options.steps = 300;
        options.learning_rate = 0.005;
        const auto report = reconstruct_layer(linear, loss, options, *backend_, silent_monitor());
        QCOMPARE(report.curve.size(), std::size_t{11});
        QCOMPARE(report.halvings, Index{0});
        // What is handed over is what the least point of the curve says.
        const double kept =
            objective(layer.weight - linear.quantized(*backend_).dequantize(), layer.moments.hessian) / 45.0;
        double least = report.curve.front().training;
        for (const LossPoint& point : report.curve)
            least = std::min(least, point.training);
        QVERIFY(std::abs(kept - least) <= 1e-4 * least);
        QVERIFY2(least < 0.9 * report.curve.front().training, qPrintable(QString::number(least)));
    }

    void a_rate_that_diverges_is_halved_and_said()
    {
        const SampleLayer layer = sample_layer({20, 24, 200, 1}, 2);
        LearnedLinear linear = make_linear(layer, LearnedKind::FlexRound, *backend_);
        const LayerLoss loss{backend_->upload(Matrix(layer.moments.hessian.cast<float>())), {}, 0.0};
        ReconstructionOptions options;
        options.steps = 50;
        options.learning_rate = 64.0;
        TestMonitor monitor;
        const auto report = reconstruct_layer(linear, loss, options, *backend_, monitor);
        QVERIFY(report.halvings > 0);
        QCOMPARE(report.learning_rate, 64.0 * std::pow(0.5, static_cast<double>(report.halvings)));
        QCOMPARE(monitor.warnings().size(), static_cast<std::size_t>(report.halvings));
        QVERIFY(monitor.warnings().front().find("diverged") != std::string::npos);
        const QuantizedMatrix q = linear.quantized(*backend_);
        QVERIFY(q.scales.allFinite());
        QVERIFY(objective(layer.weight - q.dequantize(), layer.moments.hessian) / 20.0
                <= report.curve.front().training * (1.0 + 1e-5));
    }

    void static_ranges_may_have_no_width()
    {
        const auto quantizer =
            static_quantizer(8, {{Role::Up, {0.0, 0.0}}, {Role::Down, {0.5, 2.0}}}, *backend_);
        const Buffer zero = backend_->allocate(3, 5);
        QVERIFY(backend_->download(quantizer(Role::Up, zero)).isZero());
        const Matrix x = Matrix::Constant(2, 4, 1.0F);
        const Matrix rounded = backend_->download(quantizer(Role::Down, backend_->upload(x)));
        QVERIFY((rounded - x).cwiseAbs().maxCoeff() <= 2.0F / 255.0F); // widened to hold 0: steps of 2/255
        QVERIFY(backend_->download(quantizer(Role::Query, backend_->upload(x))) == x); // no range: as it is
    }

    void a_run_learns_block_by_block()
    {
        const auto model = sample_model();
        TestMonitor monitor;
        const Plan plan = block_plan(*model, "lrq", 12);
        const auto done = Run::execute(model, plan, {}, place("run"), block_options(), *backend_, monitor);
        QVERIFY2(done.has_value(), done ? "" : done.error().sentence().c_str());
        const auto run = Run::open(place("run"));
        QVERIFY(run.has_value() && (*run)->complete());
        QVERIFY(!monitor.warnings().empty()); // the estimate
        for (int block = 0; block < static_cast<int>(model->config().blocks); ++block) {
            char name[32];
            std::snprintf(name, sizeof name, "curves/%03d.json", block);
            const auto curve = Json::read(place("run") / name);
            QVERIFY(curve.has_value());
            const Json::Array& points = *(*curve)["curve"].array_if();
            QVERIFY(points.size() >= 2);
            double least = points.front()["training"].number();
            for (const Json& point : points) {
                QVERIFY(point["held_out"].is_number());
                least = std::min(least, point["training"].number());
            }
            QVERIFY(least <= points.front()["training"].number());
        }
        QVERIFY(Run::execute(model, plan, {}, place("again"), block_options(), *backend_, silent_monitor()));
        QVERIFY(folder_contents(place("run") / "layers") == folder_contents(place("again") / "layers"));
    }

    void a_stopped_run_resumes_to_the_same_bytes()
    {
        const auto model = sample_model();
        const Plan plan = block_plan(*model, "flexround", 8);
        QVERIFY(Run::execute(model, plan, {}, place("whole"), block_options(), *backend_, silent_monitor()));
        TestMonitor stopping(12); // in the second block
        const auto stopped =
            Run::execute(model, plan, {}, place("part"), block_options(), *backend_, stopping);
        QVERIFY(!stopped.has_value());
        QCOMPARE(stopped.error().kind, ErrorKind::Cancelled);
        const auto part = Run::open(place("part"));
        QVERIFY(part.has_value() && !(*part)->complete() && !(*part)->results().empty());
        RunOptions options = block_options();
        options.resume = true;
        QVERIFY(Run::execute(model, plan, {}, place("part"), options, *backend_, silent_monitor()));
        QVERIFY(folder_contents(place("whole") / "layers") == folder_contents(place("part") / "layers"));
    }

    void simulated_activations_data()
    {
        QTest::addColumn<QString>("how");
        QTest::newRow("per token") << "a8kv8";
        QTest::newRow("static") << "a8kv8-static";
    }
    void simulated_activations()
    {
        QFETCH(QString, how);
        const auto model = sample_model();
        Plan plan = block_plan(*model, "lrq", 4);
        QVERIFY(apply_setting(plan, "*:bits=8,simulate=" + how.toStdString()));
        const fs::path folder = place(qPrintable("simulated " + how));
        const auto done = Run::execute(model, plan, {}, folder, block_options(), *backend_, silent_monitor());
        QVERIFY2(done.has_value(), done ? "" : done.error().sentence().c_str());
        QVERIFY((*Run::open(folder))->complete());
    }

    void what_is_missing_is_said()
    {
        const auto model = sample_model();
        const Plan plan = block_plan(*model, "lrq", 2);
        RunOptions options = block_options();
        options.text.clear();
        const auto no_text =
            Run::execute(model, plan, {}, place("none"), options, *backend_, silent_monitor());
        QVERIFY(!no_text.has_value());
        QCOMPARE(no_text.error().kind, ErrorKind::Usage);
        QVERIFY(no_text.error().sentence().find("--text") != std::string::npos);
        QVERIFY(!fs::exists(place("none")));

        options = block_options();
        options.memory_budget_bytes = 300 << 10;
        const auto small =
            Run::execute(model, plan, {}, place("small"), options, *backend_, silent_monitor());
        QVERIFY(!small.has_value());
        QCOMPARE(small.error().kind, ErrorKind::NoSpace);

        options = block_options();
        options.samples = 3; // an eighth of it is less than a sequence
        TestMonitor monitor;
        QVERIFY(Run::execute(model, plan, {}, place("few"), options, *backend_, monitor));
        const auto& said = monitor.warnings();
        QVERIFY(std::any_of(said.begin(), said.end(), [](const std::string& text) {
            return text.find("hold out") != std::string::npos;
        }));
    }
};

QTEST_GUILESS_MAIN(TestReconstruction)
#include "test_reconstruction.moc"
