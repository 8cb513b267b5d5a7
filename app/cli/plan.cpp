// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/evaluate/loss_increase.h"
#include "core/export/smoothed_checkpoint.h"
#include "core/plan/plan_budget.h"
#include "core/run/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

namespace rankscope::cli {
namespace {

struct PlanOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::filesystem::path out;
    PlanRequest request;
    bool force = false;
    // With --budget only
    std::string budget;
    BudgetChoices choices;
    std::string weights = "equal";
    std::filesystem::path curves;
    LossIncreaseOptions loss;
    std::filesystem::path against;
};

constexpr Index k_loss_tokens = 4096;
constexpr Index k_loss_length = 512;

ErrorWeights weights_of(const std::string& id)
{
    return id == "tokens"     ? ErrorWeights::Tokens
           : id == "measured" ? ErrorWeights::Measured
                              : ErrorWeights::Equal;
}

/// --bits and --rank fix theirs for all rows, --set for the rows that it names.
Status fix_given(BudgetChoices& choices, const PlanRequest& request, const Plan& plan)
{
    for (const LayerPlan& row : plan.rows) {
        bool bits = false;
        bool rank = request.rank.has_value();
        for (const std::string& setting : request.settings) {
            const auto gives_bits = setting_gives(setting, row.layer, "bits");
            const auto gives_rank = setting_gives(setting, row.layer, "rank");
            if (!gives_bits || !gives_rank)
                return gives_bits ? gives_rank.error() : gives_bits.error();
            bits = bits || *gives_bits;
            rank = rank || *gives_rank;
        }
        if (bits)
            choices.fixed_bits.insert(row.layer);
        if (rank)
            choices.fixed_ranks.insert(row.layer);
    }
    if (request.bits)
        choices.bits = {*request.bits};
    return {};
}

Result<BudgetedPlan> fit_to_budget(const PlanOptions& options, const Plan& plan,
                                   const std::shared_ptr<const Model>& model,
                                   const CalibrationStore* calibration, Session& session)
{
    const auto budget = parse_budget(options.budget);
    if (!budget)
        return budget.error();
    BudgetChoices choices = options.choices;
    choices.weights = weights_of(options.weights);
    if ((choices.weights == ErrorWeights::Measured) == options.loss.text.empty())
        return usage_error("--weights measured and --text belong together", "--weights",
                           "Give a text of which 4096 tokens are measured, such as the calibration's");
    auto budget_memory = session.memory_budget();
    if (!budget_memory)
        return budget_memory.error();
    if (auto fixed = fix_given(choices, options.request, plan); !fixed)
        return fixed.error();
    auto store = CurveStore::open(options.curves);
    if (!store)
        return store.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    const CurveSource source{*model, calibration, *store, **backend, session.monitor()};
    LossIncreaseOptions loss = options.loss;
    loss.seed = plan.seed;
    loss.windows.memory_budget_bytes = *budget_memory;
    if (loss.windows.length == 0 && model->config().max_positions > 0)
        loss.windows.length = std::min<Index>(k_loss_length, model->config().max_positions);
    choices.loss_increases = [&](std::span<const LayerPlan> rows) {
        return loss_increases(model, rows, source, loss);
    };
    return fit_plan_to_budget(plan, *budget, choices, source);
}

/// Errors that a run measured, by layer; only those of rows that it carried out as the plan has them.
using MeasuredErrors = std::map<std::string, double, std::less<>>;

Result<MeasuredErrors> measured_errors(const std::filesystem::path& folder, const Plan& plan)
{
    MeasuredErrors errors;
    if (folder.empty())
        return errors;
    const auto run = Run::open(folder);
    if (!run)
        return run.error();
    if ((*run)->plan().checkpoint_hash != plan.checkpoint_hash)
        return bad_input("the run was made from another checkpoint", folder.string());
    for (const LayerResult& result : (*run)->results()) {
        const LayerPlan* row = plan.find(result.layer);
        if (row && row->include && row->method == result.method
            && row->parameters.to_json() == result.parameters)
            errors[result.layer] = result.quality.relative_activation_error;
    }
    return errors;
}

Json budget_json(const BudgetedPlan& fitted, const MeasuredErrors& measured)
{
    Json rows(Json::Array{});
    for (const RowPrediction& row : fitted.rows) {
        Json entry;
        entry.set("layer", row.layer);
        entry.set("relative_activation_error", std::sqrt(row.squared_error));
        entry.set("interpolated", row.interpolated);
        entry.set("weight", row.weight);
        if (const auto found = measured.find(row.layer); found != measured.end())
            entry.set("measured_activation_error", found->second);
        rows.push_back(std::move(entry));
    }
    Json json;
    json.set("bytes", fitted.budget_bytes);
    json.set("used_bytes", fitted.allocation.bytes);
    json.set("error", fitted.allocation.error);
    json.set("lower_bound", fitted.allocation.lower_bound);
    json.set("proven", fitted.allocation.proven);
    json.set("mean_activation_error", fitted.mean_error());
    json.set("rows", std::move(rows));
    return json;
}

std::string budget_text(const BudgetedPlan& fitted)
{
    const Allocation& allocation = fitted.allocation;
    const auto interpolated = std::count_if(fitted.rows.begin(), fitted.rows.end(),
                                            [](const RowPrediction& row) { return row.interpolated; });
    return fmt::format("{} of {} used · predicted error {} ({}; no choice is below {}) · root mean square "
                       "over the layers {}\n"
                       "{}The prediction takes each layer with the others exact: evaluate the run.\n",
                       format_byte_size(allocation.bytes), format_byte_size(fitted.budget_bytes),
                       figure(allocation.error), allocation.proven ? "proven least" : "not proven",
                       figure(allocation.lower_bound), figure(fitted.mean_error()),
                       interpolated > 0 ? fmt::format("Layers between measured ranks: {}. ", interpolated)
                                        : std::string());
}

std::string parameter_text(const LayerPlan& row, std::string_view name)
{
    const auto& values = row.parameters.values();
    const auto found = values.find(name);
    return found == values.end() ? "–" : to_string(found->second);
}

/// What the curves say of each layer, and what a run of the same rows measured.
std::string prediction_table(const BudgetedPlan& fitted, const MeasuredErrors& measured)
{
    Table table({"layer", "weight", "predicted error", "measured error", "measured / predicted"});
    for (const RowPrediction& row : fitted.rows) {
        const double predicted = std::sqrt(row.squared_error);
        const auto found = measured.find(row.layer);
        const bool known = found != measured.end();
        table.add({row.layer, figure(row.weight), (row.interpolated ? "~" : "") + figure(predicted),
                   known ? figure(found->second) : "–",
                   known && predicted > 0.0 ? fmt::format("{:.3f}", found->second / predicted) : "–"});
    }
    return table.text() + "~ lies between measured ranks.\n";
}

std::string plan_table(const Plan& plan, const Model& model)
{
    Table table({"layer", "out", "in", "method", "bits", "group", "rank", "bits/weight", "bytes"});
    for (const LayerPlan& row : plan.rows) {
        const LinearLayer* layer = model.find_linear(row.layer);
        const std::string out = std::to_string(layer->out);
        const std::string in = std::to_string(layer->in);
        if (!row.include) {
            table.add({row.layer, out, in, "(as it is)", "–", "–", "–", "–", "–"});
            continue;
        }
        const double bits = planned_bits_per_weight(row, *layer);
        const double bytes = bits * static_cast<double>(layer->out * layer->in) / 8.0;
        table.add({row.layer, out, in, row.method, parameter_text(row, "bits"), parameter_text(row, "group"),
                   parameter_text(row, "rank"), figure(bits), fmt::format("{:.0f}", std::ceil(bytes))});
    }
    return table.text();
}

/// What happens to a layer from first to last: "smooth → gptq → qera_exact".
std::string chain_text(const LayerPlan& row, const Model& model)
{
    std::vector<std::string> links;
    const std::filesystem::path checkpoint = model.rotation() ? model.rotation()->checkpoint : model.path();
    if (is_smoothed(checkpoint))
        links.push_back("smooth");
    if (model.rotation())
        links.push_back("rotate");
    if (const std::string rounding = parameter_text(row, "rounding"); rounding != "–")
        links.push_back(rounding);
    const std::string objective = parameter_text(row, "objective");
    links.push_back(row.method + (objective == "block" ? " by blocks" : ""));
    return fmt::format("{}", fmt::join(links, " → "));
}

/// The chains of a plan, each with its number of layers.
std::map<std::string, std::int64_t> chains_of(const Plan& plan, const Model& model)
{
    std::map<std::string, std::int64_t> chains;
    for (const LayerPlan& row : plan.rows)
        if (row.include)
            ++chains[chain_text(row, model)];
    return chains;
}

void add_budget_options(CLI::App* command, PlanOptions& options)
{
    auto* budget =
        command
            ->add_option(
                "--budget", options.budget,
                "Size of the compressed layers together, such as 2.6bpw or 60MB: bits and rank of each "
                "are chosen for the least error, except where --bits, --rank or --set gives them")
            ->type_name("SIZE");
    command->add_option("--bits-options", options.choices.bits, "Bits to choose from (default: 2,3,4)")
        ->delimiter(',')
        ->type_name("LIST")
        ->needs(budget)
        ->excludes("--bits");
    command
        ->add_option("--rank-step", options.choices.rank_step,
                     "Ranks to choose from are multiples of it (default: 16)")
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("N")
        ->needs(budget);
    command->add_option("--max-rank", options.choices.highest_rank, "Highest rank to choose (default: 256)")
        ->check(CLI::Range(0, 1 << 20))
        ->type_name("N")
        ->needs(budget);
    command
        ->add_option("--weights", options.weights,
                     "equal: relative errors count alike; tokens: absolute errors of the layers' outputs; "
                     "measured: by how much each layer alone raises the loss on --text")
        ->check(CLI::IsMember({"equal", "tokens", "measured"}))
        ->needs(budget);
    options.loss.windows.max_tokens = k_loss_tokens;
    command->add_option("--text", options.loss.text, "Text for --weights measured")
        ->type_name("FILE")
        ->needs(budget);
    command
        ->add_option("--tokens", options.loss.windows.max_tokens,
                     "Tokens of that text to measure on (default: 4096)")
        ->check(CLI::PositiveNumber)
        ->type_name("N")
        ->needs(budget);
    command
        ->add_option("--length", options.loss.windows.length,
                     "Tokens of a window of them (default: 512, or the model's context if that is shorter)")
        ->check(CLI::PositiveNumber)
        ->type_name("T")
        ->needs(budget);
    command
        ->add_option("--against", options.against,
                     "Run of the same rows: shows what it measured beside what is predicted")
        ->type_name("RUN")
        ->needs(budget);
    command
        ->add_option("--curves", options.curves,
                     "File that keeps the measured error curves; another budget then needs no measuring")
        ->type_name("FILE")
        ->needs(budget);
}

Result<Output> plan_command(PlanOptions options, Session& session)
{
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto calibration = open_calibration(options.calibration);
    if (!calibration)
        return calibration.error();
    options.request.seed = session.options().seed;
    auto plan = make_plan(**model, calibration->get(), options.request);
    if (!plan)
        return plan.error();
    std::optional<BudgetedPlan> fitted;
    if (!options.budget.empty()) {
        auto found = fit_to_budget(options, *plan, *model, calibration->get(), session);
        if (!found)
            return found.error();
        *plan = found->plan;
        fitted = std::move(*found);
    }
    const auto measured = measured_errors(options.against, *plan);
    if (!measured)
        return measured.error();
    if (!options.out.empty()) {
        if (auto written = plan->write(options.out, options.force); !written)
            return written.error();
    }
    const PlanSize size = planned_size(*plan, **model);
    Output output;
    Json chains;
    std::string chain_lines;
    for (const auto& [chain, layers] : chains_of(*plan, **model)) {
        chains.set(chain, layers);
        chain_lines += fmt::format("{} {}: {}\n", layers, layers == 1 ? "layer" : "layers", chain);
    }
    output.document.set("chains", std::move(chains));
    output.document.set("out", options.out.empty() ? Json() : Json(options.out.string()));
    output.document.set("plan", plan->to_json());
    output.document.set("original_bytes", size.original_bytes);
    output.document.set("planned_bytes", size.planned_bytes);
    output.document.set("bits_per_weight", size.bits_per_weight);
    if (fitted)
        output.document.set("budget", budget_json(*fitted, *measured));
    output.text =
        plan_table(*plan, **model) + "\n" + chain_lines
        + fmt::format("{} bits per weight · {} instead of {}{}\n", figure(size.bits_per_weight),
                      format_byte_size(size.planned_bytes), format_byte_size(size.original_bytes),
                      options.out.empty() ? std::string() : " · written to " + options.out.string());
    if (fitted)
        output.text += budget_text(*fitted);
    if (fitted && !options.against.empty())
        output.text += "\n" + prediction_table(*fitted, *measured);
    return output;
}

} // namespace

void add_plan(Program& program)
{
    auto options = std::make_shared<PlanOptions>();
    CLI::App* command =
        program.add("plan", "What is to happen to each layer, and how large the result will be",
                    [options](Session& session) { return plan_command(*options, session); });
    add_path(command, options->path);
    command->add_option("--calibration", options->calibration, "Calibration that the plan is for")
        ->type_name("CAL");
    command
        ->add_option("--method", options->request.method, "Method of all layers; see rankscope-cli methods")
        ->type_name("M")
        ->required();
    command->add_option("--bits", options->request.bits, "Bits of each weight in Q")->type_name("B");
    command
        ->add_option("--group", options->request.group,
                     "Inputs that share a scale; 0: one scale per output channel, -1: one per matrix")
        ->type_name("G");
    command
        ->add_option("--rank", options->request.rank,
                     "Rank of L·R: a number, or a share of each matrix's smaller side such as 10%")
        ->type_name("R");
    command
        ->add_option("--layers", options->request.layers,
                     "Layers to compress, as comma-separated patterns (default: all)")
        ->type_name("GLOBS");
    command
        ->add_option(
            "--set", options->request.settings,
            "GLOB:key=value,key=value overrides, such as '*.down_proj:rank=32,method=odlri'; repeatable")
        ->type_name("SETTING")
        ->allow_extra_args(false);
    command->add_option("--out", options->out, "Plan file; without it the plan is only shown")
        ->type_name("PLAN.json");
    add_force(command, options->force);
    add_budget_options(command, *options);
}

} // namespace rankscope::cli
