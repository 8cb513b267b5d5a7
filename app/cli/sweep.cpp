// SPDX-License-Identifier: GPL-3.0-or-later
// rankscope-cli sweep: every method on one layer, one table.
#include "app/cli/jobs.h"
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/methods/method.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace rankscope::cli {
namespace {

struct SweepOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::string layer;
    std::vector<std::string> methods;
    std::vector<std::int64_t> bits{2, 3, 4};
    std::vector<std::int64_t> ranks{0, 8, 64};
    std::vector<std::string> settings;
    bool csv = false;
};

/// One line of the table: a figure, or why there is none.
struct Trial {
    const Method* method = nullptr;
    std::optional<std::int64_t> bits;
    std::optional<std::int64_t> rank;
    DecompositionQuality quality;
    double bits_per_weight = 0.0;
    double seconds = 0.0;
    std::string refusal;
};

/// The layer's weight and moments, once for all trials.
struct Layer {
    const LinearLayer* linear = nullptr;
    Matrix weight;
    std::optional<Moments> moments;
};

Result<std::vector<const Method*>> chosen_methods(const SweepOptions& options)
{
    if (options.methods.empty()) {
        const auto all = methods();
        return std::vector<const Method*>(all.begin(), all.end());
    }
    std::vector<const Method*> chosen;
    for (const std::string& id : options.methods) {
        auto method = require_method(id);
        if (!method)
            return method.error();
        chosen.push_back(*method);
    }
    return chosen;
}

Result<Layer> read_layer(const SweepOptions& options, const Model& model)
{
    Layer layer;
    layer.linear = model.find_linear(options.layer);
    if (!layer.linear)
        return usage_error("there is no linear layer of this name", options.layer,
                           "rankscope-cli info lists the layers");
    auto weight = model.weight(*layer.linear);
    if (!weight)
        return weight.error();
    layer.weight = std::move(*weight);
    auto calibration = open_calibration(options.calibration);
    if (!calibration)
        return calibration.error();
    if (!*calibration)
        return layer;
    if (auto fits = (*calibration)->check(model); !fits)
        return fits.error();
    auto moments = (*calibration)->moments(layer.linear->input_group);
    if (!moments)
        return moments.error();
    layer.moments = std::move(*moments);
    return layer;
}

/// Every combination that the method tells apart: one without bits or rank stands once for all of them.
std::vector<Trial> trials_of(const Method& method, const SweepOptions& options)
{
    std::vector<std::optional<std::int64_t>> bits{std::nullopt};
    std::vector<std::optional<std::int64_t>> ranks{std::nullopt};
    if (method.info().find("bits"))
        bits.assign(options.bits.begin(), options.bits.end());
    if (method.info().find("rank"))
        ranks.assign(options.ranks.begin(), options.ranks.end());
    std::vector<Trial> trials;
    for (const auto& bit : bits) {
        for (const auto& rank : ranks) {
            Trial trial;
            trial.method = &method;
            trial.bits = bit;
            trial.rank = rank;
            trials.push_back(std::move(trial));
        }
    }
    return trials;
}

Result<Parameters> parameters_of(const Trial& trial, const SweepOptions& options)
{
    const MethodInfo& info = trial.method->info();
    std::map<std::string, ParameterValue, std::less<>> given;
    for (const std::string& setting : options.settings) {
        const auto equals = setting.find('=');
        if (info.find(setting.substr(0, equals)))
            given[setting.substr(0, equals)] = setting.substr(equals + 1);
    }
    if (trial.bits)
        given["bits"] = *trial.bits;
    if (trial.rank)
        given["rank"] = *trial.rank;
    return Parameters::make(info, given);
}

void run_trial(Trial& trial, const Layer& layer, const SweepOptions& options, Backend& backend,
               Session& session)
{
    auto parameters = parameters_of(trial, options);
    if (!parameters) {
        trial.refusal = parameters.error().sentence();
        return;
    }
    LayerProblem problem;
    problem.weight = backend.upload(layer.weight);
    problem.moments = layer.moments ? &*layer.moments : nullptr;
    problem.name = layer.linear->name;
    problem.seed = session.options().seed;
    const auto start = std::chrono::steady_clock::now();
    const auto result = trial.method->decompose(problem, *parameters, backend, session.monitor());
    trial.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!result) {
        trial.refusal = result.error().sentence();
        return;
    }
    trial.quality = measure(layer.weight, *result, problem.moments);
    trial.bits_per_weight = result->bits_per_weight();
}

Json to_json(const Trial& trial)
{
    Json json;
    json.set("method", trial.method->info().id);
    json.set("bits", trial.bits ? Json(*trial.bits) : Json());
    json.set("rank", trial.rank ? Json(*trial.rank) : Json());
    if (!trial.refusal.empty()) {
        json.set("refused", trial.refusal);
        return json;
    }
    json.set("relative_error", trial.quality.relative_error);
    json.set("relative_activation_error", trial.quality.relative_activation_error);
    json.set("bits_per_weight", trial.bits_per_weight);
    json.set("seconds", trial.seconds);
    return json;
}

std::vector<std::string> table_row(const Trial& trial, bool csv)
{
    const auto number = [&](double value) { return csv ? exact(value) : figure(value); };
    const auto count = [](const std::optional<std::int64_t>& value) {
        return value ? std::to_string(*value) : "–";
    };
    std::vector<std::string> row{trial.method->info().id, count(trial.bits), count(trial.rank)};
    if (!trial.refusal.empty())
        row.insert(row.end(), {"–", "–", "–", "–", trial.refusal});
    else
        row.insert(row.end(),
                   {number(trial.quality.relative_error), number(trial.quality.relative_activation_error),
                    number(trial.bits_per_weight), number(trial.seconds), ""});
    return row;
}

Result<Output> sweep(const SweepOptions& options, Session& session)
{
    for (const std::string& setting : options.settings) {
        const auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            return usage_error(fmt::format("\"{}\" is no KEY=VALUE", setting), "--set");
    }
    auto chosen = chosen_methods(options);
    if (!chosen)
        return chosen.error();
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto layer = read_layer(options, **model);
    if (!layer)
        return layer.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    std::vector<Trial> trials;
    for (const Method* method : *chosen) {
        const auto own = trials_of(*method, options);
        trials.insert(trials.end(), own.begin(), own.end());
    }
    Table table({"method", "bits", "rank", "error", "activation error", "bits/weight", "seconds", "why not"});
    Json rows(Json::Array{});
    for (std::size_t i = 0; i < trials.size(); ++i) {
        session.monitor().throw_if_cancelled();
        session.monitor().set_detail(trials[i].method->info().id);
        run_trial(trials[i], *layer, options, **backend, session);
        rows.push_back(to_json(trials[i]));
        table.add(table_row(trials[i], options.csv));
    }
    Output output;
    output.document.set("layer", layer->linear->name);
    output.document.set("out", std::int64_t{layer->linear->out});
    output.document.set("in", std::int64_t{layer->linear->in});
    output.document.set("trials", std::move(rows));
    output.document.set("process", session.process());
    output.text = options.csv ? table.csv()
                              : fmt::format("{}: {} outputs, {} inputs\n{}", layer->linear->name,
                                            layer->linear->out, layer->linear->in, table.text());
    return output;
}

} // namespace

void add_sweep(Program& program)
{
    auto options = std::make_shared<SweepOptions>();
    CLI::App* command = program.add(
        "sweep", "Tries every method at several bits and ranks on one layer: one table of what they cost",
        [options](Session& session) { return sweep(*options, session); });
    add_path(command, options->path);
    command->add_option("--layer", options->layer, "Layer, as info lists it")->type_name("NAME")->required();
    command->add_option("--calibration", options->calibration, "Calibration, for the methods that need one")
        ->type_name("CAL");
    command->add_option("--method", options->methods, "Methods (default: all)")
        ->delimiter(',')
        ->type_name("ID,…");
    command->add_option("--bits", options->bits, "Bits (default: 2,3,4)")
        ->delimiter(',')
        ->check(CLI::Range(2, 8))
        ->type_name("N,…");
    command->add_option("--rank", options->ranks, "Ranks (default: 0,8,64)")
        ->delimiter(',')
        ->check(CLI::Range(0, 1 << 20))
        ->type_name("N,…");
    command->add_option("--set", options->settings, "KEY=VALUE for the methods that have such a parameter")
        ->type_name("KEY=VALUE");
    command->add_flag("--csv", options->csv, "As CSV, with all digits");
}

} // namespace rankscope::cli
