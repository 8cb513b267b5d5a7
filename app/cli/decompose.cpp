// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/case_parameters.h"
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/atomic_file.h"
#include "core/calibration/quantized_activations.h"
#include "core/checkpoint/checkpoint_reader.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/methods/method.h"
#include "core/methods/rank_share.h"
#include "core/methods/trace_json.h"

#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <cstring>

namespace rankscope::cli {
namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

struct DecomposeOptions {
    std::filesystem::path input;
    std::filesystem::path out;
    std::filesystem::path report;
    std::filesystem::path case_file;
    std::string method;
    std::optional<std::int64_t> bits;
    std::optional<std::int64_t> group;
    std::optional<std::string> rank; ///< a number, or a share such as 10%
    std::vector<std::string> settings;
    bool trace = false;
    bool force = false;
};

/// The matrix and what is known of its inputs.
struct Input {
    Matrix weight;
    std::optional<Moments> moments;
    Incoherence transform; ///< signs of the file's own, if it has any
};

/// float64 where the file has it: a covariance loses digits that a factorisation needs when it is read as
/// float32.
Result<MatrixD> read_double(const CheckpointReader& reader, std::string_view tensor)
{
    auto view = reader.view(tensor);
    auto rounded = reader.read(tensor); // refuses types and values that are no numbers
    if (!view || !rounded)
        return view ? rounded.error() : view.error();
    if (view->dtype != DType::F64)
        return MatrixD(rounded->cast<double>());
    MatrixD exact(rounded->rows(), rounded->cols());
    std::memcpy(exact.data(), view->bytes.data(), view->bytes.size());
    if (auto whole = reader.confirm(tensor); !whole)
        return whole.error();
    return exact;
}

Result<Moments> moments_of_hessian(const CheckpointReader& reader, std::string_view tensor)
{
    auto hessian = read_double(reader, tensor);
    if (!hessian)
        return hessian.error();
    if (hessian->rows() != hessian->cols())
        return bad_input(
            fmt::format("tensor {} is {} × {}, it must be square", tensor, hessian->rows(), hessian->cols()));
    Moments moments; // of a number of tokens that nobody tells
    moments.hessian = std::move(*hessian);
    // H does not tell absolute values; the root mean square is the nearest figure that it holds.
    moments.mean_abs = moments.hessian.diagonal().cwiseMax(0.0).cwiseSqrt();
    moments.max_abs = moments.mean_abs;
    return moments;
}

Result<VectorD> read_signs(const CheckpointReader& reader, std::string_view tensor, Index count)
{
    auto values = reader.read(tensor);
    if (!values)
        return values.error();
    const bool signs = (values->array().abs() == 1.0F).all();
    if (values->size() != count || !signs)
        return bad_input(fmt::format("tensor {} must hold {} signs, each 1 or -1", tensor, count));
    return VectorD(values->reshaped<Eigen::RowMajor>().cast<double>());
}

Status read_transform(const CheckpointReader& reader, Input& input)
{
    if (!reader.find("signs_left") && !reader.find("signs_right"))
        return {};
    auto left = read_signs(reader, "signs_left", input.weight.rows());
    if (!left)
        return left.error();
    auto right = read_signs(reader, "signs_right", input.weight.cols());
    if (!right)
        return right.error();
    input.transform = Incoherence(std::move(*left), std::move(*right));
    return {};
}

/// Sigma_y and Sigma_xy beside Sigma_x (or H): moments of an input that is rounded so.
Status read_covariances(const CheckpointReader& reader, const ActivationQuantization& rounding,
                        Moments& moments)
{
    for (const auto& [name, target] :
         {std::pair{"Sigma_xy", &moments.sigma_xy}, {"Sigma_y", &moments.sigma_yy}}) {
        auto sigma = read_double(reader, name);
        if (!sigma)
            return sigma.error();
        if (sigma->rows() != moments.channels() || sigma->cols() != moments.channels())
            return bad_input(
                fmt::format("tensor {} is {} × {}, it must be as large as the input's moments, {}", name,
                            sigma->rows(), sigma->cols(), moments.channels()));
        *target = std::move(*sigma);
    }
    moments.activations = rounding;
    return {};
}

Result<Moments> moments_of_tensors(const CheckpointReader& reader, const ActivationQuantization& rounding)
{
    const char* first = reader.find("Sigma_x") ? "Sigma_x" : "H";
    auto moments = moments_of_hessian(reader, first);
    if (!moments || !rounding.active() || !reader.find("Sigma_y") || !reader.find("Sigma_xy"))
        return moments;
    if (auto read = read_covariances(reader, rounding, *moments); !read)
        return read.error();
    return moments;
}

/// With the moments of activations rounded so, where the file has tokens or covariances.
Result<Input> read_input(const DecomposeOptions& options, const ActivationQuantization& rounding)
{
    auto reader = CheckpointReader::open(options.input);
    if (!reader)
        return reader.error();
    const auto refuse = [&](const Error& error) { return error.in(options.input.string()); };
    Input input;
    auto weight = (*reader)->read("W");
    if (!weight)
        return weight.error();
    input.weight = std::move(*weight);
    if (auto read = read_transform(**reader, input); !read)
        return refuse(read.error());
    const bool has_tokens = (*reader)->find("X") != nullptr;
    const bool has_hessian = (*reader)->find("H") != nullptr || (*reader)->find("Sigma_x") != nullptr;
    if (has_tokens) {
        auto tokens = (*reader)->read("X");
        if (!tokens)
            return tokens.error();
        if (tokens->rows() != input.weight.cols() || tokens->cols() == 0)
            return refuse(bad_input(fmt::format("tensor X is {} × {}, it must be in × tokens with {} inputs",
                                                tokens->rows(), tokens->cols(), input.weight.cols())));
        input.moments = moments_of(MatrixD(tokens->transpose().cast<double>()), rounding);
    } else if (has_hessian) {
        auto moments = moments_of_tensors(**reader, rounding);
        if (!moments)
            return refuse(moments.error());
        if (moments->channels() != input.weight.cols())
            return refuse(bad_input(fmt::format("the moments are {0} × {0}, W has {1} inputs",
                                                moments->channels(), input.weight.cols())));
        input.moments = std::move(*moments);
    }
    return input;
}

/// A rank that is a share becomes that of the input's W.
Status resolve_rank_share(const DecomposeOptions& options, Given& given)
{
    const auto rank = given.find("rank");
    const auto* text = rank == given.end() ? nullptr : std::get_if<std::string>(&rank->second);
    if (!text || !text->ends_with('%'))
        return {};
    auto reader = CheckpointReader::open(options.input);
    if (!reader)
        return reader.error();
    const TensorInfo* weight = (*reader)->find("W");
    if (!weight || weight->shape.size() != 2)
        return bad_input("there is no matrix W", options.input.string());
    auto resolved = resolved_rank(rank->second, weight->shape[0], weight->shape[1]);
    if (!resolved)
        return resolved.error();
    rank->second = std::move(*resolved);
    return {};
}

struct Task {
    const Method* method = nullptr;
    Parameters parameters;
};

Result<Task> read_task(const DecomposeOptions& options)
{
    Json sidecar;
    if (!options.case_file.empty()) {
        auto read = Json::read(options.case_file);
        if (!read)
            return read.error();
        sidecar = std::move(*read);
    }
    const std::string id = options.method.empty() ? sidecar["method"].string() : options.method;
    if (id.empty())
        return usage_error("--method, or --case with a \"method\", is needed", "decompose",
                           "rankscope-cli methods lists the methods");
    auto method = require_method(id);
    if (!method)
        return method.error();
    const MethodInfo& info = (*method)->info();
    Given given;
    if (!options.case_file.empty()) {
        auto from_case = case_parameters(info, sidecar["parameters"]);
        if (!from_case)
            return from_case.error().in(options.case_file.string());
        given = std::move(*from_case);
    }
    for (const auto& [name, value] : {std::pair{"bits", &options.bits}, {"group", &options.group}}) {
        if (*value && info.find(name))
            given[name] = **value;
    }
    if (options.rank && info.find("rank"))
        given["rank"] = *options.rank;
    for (const std::string& setting : options.settings) {
        const auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            return usage_error(fmt::format("\"{}\" is no KEY=VALUE", setting), "--set");
        given[setting.substr(0, equals)] = setting.substr(equals + 1);
    }
    if (auto resolved = resolve_rank_share(options, given); !resolved)
        return resolved.error();
    auto parameters = Parameters::make(info, given);
    if (!parameters)
        return parameters.error();
    return Task{*method, std::move(*parameters)};
}

void add_trace(const std::vector<IterationReport>& trace, std::vector<TensorSource>& tensors)
{
    for (std::size_t i = 0; i < trace.size(); ++i) {
        const std::string prefix = fmt::format("trace.{:03}.", i);
        for (const auto& [name, matrix] :
             {std::pair{"Q", &trace[i].quantized}, {"L", &trace[i].left}, {"R", &trace[i].right}}) {
            if (matrix->size() > 0)
                tensors.push_back(tensor_source(prefix + name, *matrix));
        }
    }
}

Status write_result(const DecomposeOptions& options, const Decomposition& decomposition)
{
    const QuantizedMatrix& q = decomposition.quantized;
    std::vector<TensorSource> tensors;
    if (q.codes.size() > 0) {
        tensors.push_back(tensor_source("Q", q.dequantize()));
        tensors.push_back(tensor_source("codes", q.codes));
        tensors.push_back(tensor_source("scales", q.scales));
        if (q.zeros.size() > 0 && !q.grid.symmetric)
            tensors.push_back(tensor_source("zeros", q.zeros));
    }
    if (decomposition.low_rank.rank() > 0) {
        tensors.push_back(tensor_source("L", decomposition.low_rank.left));
        tensors.push_back(tensor_source("R", decomposition.low_rank.right));
    }
    if (!decomposition.transform.empty()) { // Q, L and R are in the rotated basis, W_hat is not
        tensors.push_back(tensor_source(
            "signs_left", Matrix(decomposition.transform.left_signs().transpose().cast<float>())));
        tensors.push_back(tensor_source(
            "signs_right", Matrix(decomposition.transform.right_signs().transpose().cast<float>())));
    }
    tensors.push_back(tensor_source("W_hat", decomposition.reconstruct()));
    if (options.trace)
        add_trace(decomposition.trace, tensors);
    return write_safetensors(options.out, std::move(tensors), {}, options.force);
}

/// Of the decomposition alone, without reading and measuring.
struct Cost {
    double seconds = 0.0;
    double cpu_seconds = 0.0; ///< of all threads
};

Json report_json(const Task& task, const Decomposition& decomposition, const DecompositionQuality& quality,
                 const Cost& cost, Session& session)
{
    Json outliers(Json::Array{});
    for (const Index channel : decomposition.outlier_channels)
        outliers.push_back(std::int64_t{channel});
    Json json;
    json.set("method", task.method->info().id);
    json.set("parameters", task.parameters.to_json());
    json.set("seconds", cost.seconds);
    json.set("cpu_seconds", cost.cpu_seconds);
    json.set("bits_per_weight", decomposition.bits_per_weight());
    json.set("relative_error", quality.relative_error);
    json.set("relative_activation_error", quality.relative_activation_error);
    json.set("quantization_scale", decomposition.quantization_scale);
    if (decomposition.activations.active()) {
        json.set("activation_bits", decomposition.activations.bits);
        json.set("activation_clip", decomposition.activations.clip);
    }
    json.set("rank", std::int64_t{decomposition.low_rank.rank()});
    json.set("outlier_channels", std::move(outliers));
    json.set("iterations", trace_to_json(decomposition.trace));
    json.set("process", session.process());
    return json;
}

std::string report_text(const Json& report, const std::vector<IterationReport>& trace)
{
    std::string text = fmt::format("{}: error {}, activation error {}, {} bits per weight, rank {}, {} s\n",
                                   report["method"].string(), figure(report["relative_error"].number()),
                                   figure(report["relative_activation_error"].number()),
                                   figure(report["bits_per_weight"].number()), report["rank"].integer(),
                                   figure(report["seconds"].number()));
    if (trace.empty())
        return text;
    Table table({"step", "stage", "activation error", "Q scale", "|QX|/|WX|", "|LRX|/|WX|"});
    for (const IterationReport& step : trace)
        table.add({std::to_string(step.step), step.stage, figure(step.relative_activation_error),
                   figure(step.quantization_scale), figure(step.ratio_qx), figure(step.ratio_lrx)});
    return text + table.text();
}

/// Refuses outputs that exist before the work, not after it.
Status check_outputs(const DecomposeOptions& options)
{
    std::error_code problem;
    for (const auto& path : {options.out, options.report}) {
        if (!options.force && !path.empty() && std::filesystem::exists(path, problem))
            return bad_input("it exists already", path.string(),
                             "Use --force to replace it, or choose another name");
    }
    return {};
}

Result<Output> decompose(const DecomposeOptions& options, Session& session)
{
    auto task = read_task(options);
    if (!task)
        return task.error();
    if (auto free = check_outputs(options); !free)
        return free.error();
    auto input = read_input(options, activations_of(task->method->info(), task->parameters));
    if (!input)
        return input.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    const Moments* moments = input->moments ? &*input->moments : nullptr;
    if (task->method->info().needs.hessian && !moments)
        return bad_input(
            fmt::format("method {} needs activations: there is neither a tensor X nor a tensor H",
                        task->method->info().id),
            options.input.string(), "Add X (in × tokens) or H (in × in, X·Xᵀ / tokens)");
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t cpu_start = std::clock();
    LayerProblem problem;
    problem.weight = (*backend)->upload(input->weight);
    problem.moments = moments;
    problem.name = "W";
    problem.seed = session.options().seed;
    problem.keep_iterates = options.trace;
    if (!input->transform.empty())
        problem.transform = &input->transform;
    auto decomposition = task->method->decompose(problem, task->parameters, **backend, session.monitor());
    if (!decomposition)
        return decomposition.error().in(options.input.string());
    Cost cost;
    cost.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    cost.cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    const DecompositionQuality quality = measure(input->weight, *decomposition, moments);
    Output output;
    output.document = report_json(*task, *decomposition, quality, cost, session);
    output.text = report_text(output.document, decomposition->trace);
    if (auto written = write_result(options, *decomposition); !written)
        return written.error();
    if (!options.report.empty()) {
        if (auto written = write_text_file(options.report, output.document.dump(2) + "\n", options.force);
            !written)
            return written.error();
    }
    return output;
}

} // namespace

void add_decompose(Program& program)
{
    auto options = std::make_shared<DecomposeOptions>();
    CLI::App* command = program.add("decompose", "One matrix, for research and teaching",
                                    [options](Session& session) { return decompose(*options, session); });
    command->add_option("--input", options->input, "Safetensors file with W and, where needed, X or H")
        ->type_name("IN.safetensors")
        ->required();
    command->add_option("--method", options->method, "Method; see rankscope-cli methods")->type_name("M");
    command->add_option("--bits", options->bits, "Bits of each weight in Q")->type_name("B");
    command->add_option("--group", options->group, "Inputs that share a scale; 0: per output, -1: per matrix")
        ->type_name("G");
    command
        ->add_option("--rank", options->rank,
                     "Rank of L·R: a number, or a share of the smaller side such as 10%")
        ->type_name("R");
    command->add_option("--set", options->settings, "Any parameter; repeatable")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    command->add_option("--case", options->case_file, "Method and parameters from a file")
        ->type_name("CASE.json");
    command->add_option("--out", options->out, "Q, codes, scales, zeros, L, R, W_hat")
        ->type_name("OUT.safetensors")
        ->required();
    command->add_option("--report", options->report, "Figures as JSON")->type_name("REPORT.json");
    command->add_flag("--trace", options->trace, "Write the matrices of every iteration too");
    add_force(command, options->force);
}

} // namespace rankscope::cli
