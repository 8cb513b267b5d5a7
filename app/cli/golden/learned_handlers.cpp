// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/methods/block_reconstruction.h"
#include "core/methods/smoothing.h"

#include <algorithm>
#include <cmath>

namespace rankscope::golden {
namespace {

using Role = LinearRole;

constexpr std::pair<Role, const char*> k_linears[] = {
    {Role::Query, "q_proj"},   {Role::Key, "k_proj"}, {Role::Value, "v_proj"},   {Role::Output, "o_proj"},
    {Role::Gate, "gate_proj"}, {Role::Up, "up_proj"}, {Role::Down, "down_proj"},
};

MatrixD as_row(const std::vector<double>& values)
{
    return Eigen::Map<const MatrixD>(values.data(), 1, static_cast<Index>(values.size()));
}

Buffer uploaded(const GoldenCase& golden, const std::string& name, Backend& backend)
{
    return golden.has(name) ? backend.upload(golden.single(name)) : Buffer{};
}

// Learned rounding
// ---------------------------------------------------------------------------------------------------

/// The start that a case gives; s₀ = exp(log s₁), so that δ starts at 0.
LearnedParameters start_of(const GoldenCase& golden, const std::string& prefix, Backend& backend)
{
    LearnedParameters start;
    const MatrixD& scales = golden.tensor(prefix + "log_s1");
    start.shift = backend.allocate(scales.rows(), scales.cols());
    start.rows = uploaded(golden, prefix + "r", backend);
    start.columns = uploaded(golden, prefix + "c", backend);
    start.left = uploaded(golden, prefix + "L", backend);
    start.right = uploaded(golden, prefix + "U", backend);
    start.full = uploaded(golden, prefix + "S2", backend);
    return start;
}

GridBuffers grid_of_start(const GoldenCase& golden, const std::string& prefix, const Matrix& zeros,
                          Backend& backend)
{
    const MatrixD scales = golden.tensor(prefix + "log_s1").array().exp();
    return {grid_parameter(golden), backend.upload(Matrix(scales.cast<float>())), backend.upload(zeros)};
}

LearnedKind kind_of(const GoldenCase& golden)
{
    return golden.method().starts_with("flexround") ? LearnedKind::FlexRound : LearnedKind::Lrq;
}

void compare_parameters(const GoldenCase& golden, const std::string& prefix, const LearnedParameters& actual,
                        const MatrixD& log_start, Backend& backend, Verdict& verdict)
{
    const std::pair<const char*, const Buffer*> members[] = {
        {"log_s1", &actual.shift}, {"r", &actual.rows},  {"c", &actual.columns},
        {"L", &actual.left},       {"U", &actual.right}, {"S2", &actual.full},
    };
    for (const auto& [name, buffer] : members) {
        if (!golden.has("expect." + prefix + name))
            continue;
        MatrixD values = backend.download_double(*buffer);
        if (buffer == &actual.shift && log_start.size() > 0)
            values += log_start;
        verdict.tensor(prefix + name, values);
    }
}

ReconstructionOptions options_of(const GoldenCase& golden)
{
    ReconstructionOptions options;
    options.steps = integer_parameter(golden, "steps", 10);
    options.learning_rate = golden.parameters()["lr"].number(1e-3);
    options.checks = 1;
    return options;
}

/// Before each step and after the last.
MatrixD losses(const ReconstructionReport& report)
{
    std::vector<double> all = report.step_losses;
    all.push_back(report.curve.back().training);
    return as_row(all);
}

/// The best parameters are kept, the case knows the last ones: the steps are taken here one by one.
Status check_linear(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const MatrixD& w = golden.tensor("W");
    const MatrixD& x = golden.tensor("X");
    const MatrixD& seen = golden.has("X_q") ? golden.tensor("X_q") : x;
    const double tokens = static_cast<double>(x.cols());
    const MatrixD lost = w * (x - seen);
    LayerLoss loss;
    loss.hessian = backend.upload(Matrix((seen * seen.transpose() / tokens).cast<float>()));
    loss.drift = backend.upload(Matrix((lost * seen.transpose() / tokens).cast<float>()));
    loss.floor = lost.squaredNorm() / tokens;
    const ReconstructionOptions options = options_of(golden);
    LearnedLinear linear(backend.upload(golden.single("W")),
                         grid_of_start(golden, "init.", golden.single("zeros"), backend), kind_of(golden),
                         start_of(golden, "init.", backend), backend);
    std::vector<double> history;
    for (Index step = 0; step <= options.steps; ++step) {
        history.push_back(descend_layer(linear, loss, backend));
        if (step == 0)
            compare_parameters(golden, "grad0.", linear.gradients(), {}, backend, verdict);
        if (step < options.steps) {
            AdamStep by;
            by.learning_rate = cosine_rate(options.learning_rate, step, options.steps);
            by.step = step + 1;
            linear.step(by, backend);
        }
    }
    compare_parameters(golden, "final.", linear.parameters(), golden.tensor("init.log_s1"), backend, verdict);
    verdict.tensor("W_hat", backend.download(linear.forward(backend)));
    verdict.tensor("loss", as_row(history));
    verdict.scalar("loss_first", history.front());
    verdict.scalar("loss_last", history.back());
    return {};
}

// Blocks
// -------------------------------------------------------------------------------------------------------------

Status require_block(const GoldenCase& golden)
{
    for (const auto& [role, name] : k_linears)
        if (!golden.has(name))
            return bad_input("the case holds no tensor " + std::string(name));
    const Json& given = golden.parameters();
    const Index heads = given["heads"].integer();
    const Index kv_heads = given["kv_heads"].integer();
    const Index size = given["head_dim"].integer();
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || size < 2 || size % 2 != 0
        || golden.tensor("q_proj").rows() != heads * size
        || golden.tensor("k_proj").rows() != kv_heads * size)
        return bad_input("heads, kv_heads and head_dim do not fit to the projections");
    return {};
}

DifferentiableBlock block_of(const GoldenCase& golden, Backend& backend)
{
    const Json& given = golden.parameters();
    BlockDefinition block;
    block.heads = given["heads"].integer();
    block.kv_heads = given["kv_heads"].integer();
    block.head_dim = given["head_dim"].integer();
    const double size = static_cast<double>(block.head_dim);
    block.traits.attention_scale = 1.0 / std::sqrt(size);
    for (Index i = 0; i < block.head_dim; i += 2)
        block.rotation.frequencies.push_back(
            std::pow(given["theta"].number(10000.0), -static_cast<double>(i) / size));
    const double epsilon = given["eps"].number(1e-5);
    block.attention_norm = Norm(backend.upload(golden.single("input_norm")), {}, epsilon);
    block.mlp_norm = Norm(backend.upload(golden.single("post_norm")), {}, epsilon);
    return DifferentiableBlock(std::move(block));
}

BlockWeights weights_of(const GoldenCase& golden, Backend& backend)
{
    BlockWeights weights;
    for (const auto& [role, name] : k_linears)
        weights[role] = backend.upload(golden.single(name));
    return weights;
}

BlockQuantizers quantizers_of(const GoldenCase& golden, Backend& backend)
{
    BlockQuantizers quantizers;
    const int activation_bits = static_cast<int>(integer_parameter(golden, "activation_bits", 0));
    const int kv_bits = static_cast<int>(integer_parameter(golden, "kv_bits", 0));
    if (activation_bits > 0)
        quantizers.input = per_token_quantizer(activation_bits, backend);
    if (kv_bits > 0)
        quantizers.keys_values = per_token_quantizer(kv_bits, backend);
    return quantizers;
}

/// Sequences stacked: the case stores batch × tokens × features.
Matrix stacked(const GoldenCase& golden, const std::string& name, Index width)
{
    const Matrix values = golden.single(name);
    return Eigen::Map<const Matrix>(values.data(), values.size() / width, width);
}

/// As the case stores it: one row a sequence.
MatrixD by_sequence(const Buffer& x, Index sequences, Backend& backend)
{
    const MatrixD values = backend.download_double(x);
    return Eigen::Map<const MatrixD>(values.data(), sequences, values.size() / sequences);
}

Status check_block_gradient(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    if (auto fits = require_block(golden); !fits)
        return fits;
    const Index width = golden.tensor("q_proj").cols();
    const Index sequences = golden.tensor("x").rows();
    const Buffer x = backend.upload(stacked(golden, "x", width));
    const DifferentiableBlock block = block_of(golden, backend);
    const BlockWeights weights = weights_of(golden, backend);
    BlockTape tape;
    const Buffer y =
        block.forward(x, x.rows() / sequences, weights, quantizers_of(golden, backend), &tape, backend);
    verdict.tensor("y", by_sequence(y, sequences, backend));
    const BlockGradient gradient =
        block.backward(backend.upload(stacked(golden, "dy", width)), weights, tape, backend);
    verdict.tensor("dx", by_sequence(gradient.dx, sequences, backend));
    for (const auto& [role, name] : k_linears)
        verdict.tensor("grad." + std::string(name), backend.download(gradient.weights.at(role)));
    verdict.tensor("grad.input_norm", backend.download(gradient.attention_gain));
    verdict.tensor("grad.post_norm", backend.download(gradient.mlp_gain));
    return {};
}

/// The zero points of the start, which block cases do not give: those of the weight's own grid.
Matrix fitted_zeros(const GoldenCase& golden, const char* name, Backend& backend)
{
    return backend.download(
        backend.fit_grid(backend.upload(golden.single(name)), grid_parameter(golden)).zeros);
}

HiddenStates states_of(const Matrix& rows)
{
    auto states = HiddenStates::in_memory(rows.rows(), rows.cols());
    states->rows(0, rows.rows()) = rows;
    return std::move(*states);
}

Status check_block(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    if (auto fits = require_block(golden); !fits)
        return fits;
    const Index width = golden.tensor("q_proj").cols();
    const Index sequences = golden.tensor("x_q").rows();
    HiddenStates inputs = states_of(stacked(golden, "x_q", width));
    HiddenStates targets = states_of(stacked(golden, "y_fp", width));
    const DifferentiableBlock block = block_of(golden, backend);
    std::map<Role, LearnedLinear> linears;
    BlockProblem problem;
    problem.block = &block;
    problem.quantizers = quantizers_of(golden, backend);
    problem.streams = {&inputs, &targets, inputs.tokens() / sequences, 0};
    for (const auto& [role, name] : k_linears) {
        const std::string prefix = "init." + std::string(name) + ".";
        const GridBuffers grid = grid_of_start(golden, prefix, fitted_zeros(golden, name, backend), backend);
        linears.emplace(role, LearnedLinear(backend.upload(golden.single(name)), grid, kind_of(golden),
                                            start_of(golden, prefix, backend), backend));
        problem.learned[role] = &linears.at(role);
    }
    ReconstructionOptions options = options_of(golden);
    options.batch = sequences;
    const double first = descend_block(problem, options, backend);
    for (const auto& [role, name] : k_linears)
        compare_parameters(golden, "grad0." + std::string(name) + ".", linears.at(role).gradients(), {},
                           backend, verdict);
    const ReconstructionReport report = reconstruct_block(problem, options, backend, silent_monitor());
    for (const auto& [role, name] : k_linears)
        verdict.tensor("W_hat." + std::string(name), backend.download(linears.at(role).forward(backend)));
    verdict.tensor("loss", losses(report));
    verdict.scalar("loss_first", first);
    verdict.scalar("loss_last", report.curve.back().training);
    return {};
}

// Smoothing
// ----------------------------------------------------------------------------------------------------------

Status check_smoothing(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    std::vector<Matrix> weights{golden.single("W")};
    if (golden.has("W_b"))
        weights.push_back(golden.single("W_b"));
    const VectorD max_abs = golden.tensor("X").cwiseAbs().rowwise().maxCoeff();
    const VectorD scales = smooth_scales(max_abs, weights, golden.parameters()["alpha"].number(0.5),
                                         golden.parameters()["eps"].number(1e-5));
    verdict.tensor("smooth", MatrixD(scales.transpose()));
    const char* const names[] = {"W", "W_b"};
    for (std::size_t i = 0; i < weights.size(); ++i) {
        Buffer smoothed = backend.upload(weights[i]);
        backend.scale_columns(smoothed, scales);
        verdict.tensor(names[i], backend.download(smoothed));
    }
    Buffer gain = backend.upload(golden.single("norm_gain"));
    backend.scale_columns(gain, scales.cwiseInverse());
    verdict.tensor("norm_gain", backend.download(gain));
    return {};
}

/// A discrete search: in float32 another candidate may win by a hair. The error is held, from above.
Status check_svdquant(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Json& given = golden.parameters();
    SvdQuantOptions options;
    options.weights.bits = static_cast<int>(given["weight_bits"].integer(4));
    options.weights.group = given["group"].integer(64);
    options.weights.symmetric = true;
    options.activation_bits = static_cast<int>(given["activation_bits"].integer(4));
    options.activation_group = options.weights.group;
    options.rank = integer_parameter(golden, "rank", 32);
    options.grid = static_cast<int>(given["grid"].integer(20));
    options.iterations = static_cast<int>(given["iterations"].integer(100));
    if (options.weights.bits < 2 || options.weights.bits > 8 || options.activation_bits < 2
        || options.activation_bits > 8)
        return usage_error("weight_bits and activation_bits lie in 2 … 8");
    const Matrix tokens = golden.single("X").transpose();
    const SvdQuantResult result = svdquant(backend.upload(golden.single("W")), backend.upload(tokens),
                                           options, backend, silent_monitor());
    const double expected = golden.json()["scalars"]["relative_output_error"].number();
    verdict.scalar("relative_output_error", expected, std::max(expected, result.relative_output_error),
                   golden.json()["scalar_rtol"]["f32"].number());
    verdict.tensor("smooth", MatrixD(result.smooth.transpose()));
    verdict.leave_to_bands("alpha");
    verdict.leave_to_bands("weight_term");
    return {};
}

Status check_loftq(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const auto result = run_method("loftq", golden, nullptr, backend);
    if (!result)
        return result.error();
    verdict.tensor("Q", result->quantized.dequantize());
    verdict.tensor("LR", Matrix(result->low_rank.left * result->low_rank.right));
    std::vector<double> errors;
    for (const IterationReport& report : result->trace)
        errors.push_back(report.relative_activation_error * golden.tensor("W").norm());
    verdict.tensor("errors", as_row(errors));
    const DecompositionQuality quality = measure(golden.single("W"), *result, nullptr);
    verdict.scalar("relative_error", quality.relative_error);
    // Its inputs are not in the case.
    verdict.leave_to_bands("relative_activation_error");
    return {};
}

} // namespace

std::vector<Handler> learned_handlers()
{
    return {{"lrq", {"W", "X", "zeros", "init.log_s1"}, check_linear},
            {"flexround", {"W", "X", "zeros", "init.log_s1"}, check_linear},
            {"llama_block_gradient", {"x", "dy", "input_norm", "post_norm"}, check_block_gradient},
            {"lrq_block", {"x_q", "y_fp", "input_norm", "post_norm"}, check_block},
            {"flexround_block", {"x_q", "y_fp", "input_norm", "post_norm"}, check_block},
            {"smoothquant", {"W", "X", "norm_gain"}, check_smoothing},
            {"svdquant", {"W", "X"}, check_svdquant},
            {"loftq", {"W"}, check_loftq}};
}

} // namespace rankscope::golden
