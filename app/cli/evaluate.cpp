// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/report.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/atomic_file.h"
#include "core/base/sha256.h"
#include "core/evaluate/evaluation_record.h"
#include "core/evaluate/multiple_choice.h"
#include "core/evaluate/simulated_pass.h"
#include "core/methods/method.h"
#include "core/run/block_curves.h"

#include <fmt/format.h>

#include <map>
#include <optional>

namespace rankscope::cli {
namespace {

struct EvaluateOptions {
    std::filesystem::path path;
    std::filesystem::path text;
    std::string protocol = "gptq";
    PerplexityOptions perplexity;
    std::filesystem::path original;
    bool no_original = false;
    std::vector<std::filesystem::path> tasks;
    std::filesystem::path predictions;
    bool force = false;
    ActivationQuantization activations{0, 0.9}; ///< bits 0: as the run says
    std::string simulate = "none";
    ActivationSimulation simulation;
};

/// What is evaluated: a checkpoint, or a run in its checkpoint.
struct Subject {
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Run> run; ///< empty for a checkpoint
    std::unique_ptr<WeightSource> weights;

    EvaluatedModel evaluated() const { return {model, weights.get()}; }
};

Result<Subject> open_subject(const std::filesystem::path& path, Session& session)
{
    Subject subject;
    if (!Run::is_run(path)) {
        auto model = Model::open(path);
        if (!model)
            return model.error();
        subject.model = *model;
        subject.weights = checkpoint_weights(subject.model);
        return subject;
    }
    auto run = Run::open(path);
    if (!run)
        return run.error();
    if (!(*run)->complete())
        session.monitor().warn(
            "The run is not finished: layers that are missing count as they are in the checkpoint.");
    auto model = (*run)->model();
    if (!model)
        return model.error();
    subject.model = *model;
    subject.run = *run;
    subject.weights = run_weights(subject.model, subject.run);
    return subject;
}

/// What the rows of a run simulate while they learn; empty: nothing.
std::string learned_simulation(const Run& run)
{
    for (const LayerPlan& row : run.plan().rows) {
        const auto found = row.parameters.values().find("simulate");
        const auto* how =
            found == row.parameters.values().end() ? nullptr : std::get_if<std::string>(&found->second);
        if (row.include && how && *how != "none")
            return *how;
    }
    return {};
}

/// Puts the simulation that was asked for into the options of the measurement.
Status prepare_simulation(EvaluateOptions& options, const Subject& subject, Session& session)
{
    if (options.simulate == "none") {
        if (const std::string learned = subject.run ? learned_simulation(*subject.run) : ""; !learned.empty())
            session.monitor().warn(
                fmt::format("The run was learned with rounded activations, keys and values, which "
                            "are measured as they are here; --simulate {} rounds them.",
                            learned));
        return {};
    }
    if (!options.tasks.empty())
        return usage_error("--simulate is for the perplexity, not for questions with choices", "--simulate",
                           "Leave --tasks out");
    ActivationSimulation simulation = options.simulation;
    simulation.static_ranges = options.simulate == "a8kv8-static";
    if (simulation.static_ranges && subject.run) {
        auto curves = read_block_curves(subject.run->path());
        if (!curves)
            return curves.error();
        for (const BlockCurve& curve : *curves)
            if (!curve.ranges.empty())
                simulation.kept[curve.block] = curve.ranges;
    }
    options.perplexity.simulation = std::make_shared<const ActivationSimulation>(std::move(simulation));
    return {};
}

/// What a run or an export is compared with; empty if with nothing.
Result<std::optional<Subject>> open_original(const EvaluateOptions& options, const Subject& subject,
                                             Session& session)
{
    if (options.no_original && !options.original.empty())
        return usage_error("--original and --no-original contradict each other");
    if (!options.original.empty()) {
        auto original = open_subject(options.original, session);
        if (!original)
            return original.error();
        return std::optional(std::move(*original));
    }
    if (!subject.run || options.no_original)
        return std::optional<Subject>();
    return std::optional(Subject{subject.model, nullptr, checkpoint_weights(subject.model)});
}

std::string share(double value) { return fmt::format("{:.1f} %", 100.0 * value); }

Output report_one(const PerplexityResult& result)
{
    Output output;
    output.document = to_json(result);
    output.document.set("original", Json());
    output.text = fmt::format("perplexity {}\n", describe(result));
    return output;
}

Output report_both(const TextComparison& result, const std::string& bits)
{
    Table table({"weights", "perplexity", "±", "bits/weight", "mean KL", "99 % KL", "same top-1"});
    table.add({"original", figure(result.original.perplexity), figure(result.original.standard_error), "–",
               "–", "–", "–"});
    table.add(
        {"compressed", figure(result.compressed.perplexity), figure(result.compressed.standard_error), bits,
         fmt::format("{} ± {}", figure(result.divergence.mean_kl), figure(result.divergence.standard_error)),
         figure(result.divergence.kl_99), share(result.divergence.same_top)});
    Output output;
    output.document = to_json(result.compressed);
    output.document.set("original", to_json(result.original));
    output.document.set("divergence", to_json(result.divergence));
    output.text =
        table.text()
        + fmt::format("{} protocol, {} windows of {} tokens of {}\n", id(result.compressed.protocol),
                      result.compressed.windows, result.compressed.length, result.compressed.text_file);
    return output;
}

Result<Output> measure_text(const EvaluateOptions& options, const Subject& subject,
                            const std::optional<Subject>& original, Backend& backend, Monitor& monitor)
{
    if (!original) {
        auto result =
            perplexity(subject.model, *subject.weights, options.text, options.perplexity, backend, monitor);
        if (!result)
            return result.error();
        return report_one(*result);
    }
    auto both = compare_on_text(original->evaluated(), subject.evaluated(), options.text, options.perplexity,
                                backend, monitor);
    if (!both)
        return both.error();
    const std::string bits =
        subject.run ? figure(summarize(*subject.run, *subject.model).bits_per_weight) : "–";
    return report_both(*both, bits);
}

std::string percent(const Accuracy& accuracy)
{
    return fmt::format("{:.2f} ± {:.2f}", 100.0 * accuracy.value, 100.0 * accuracy.standard_error);
}

/// A line of JSON per question: what the model thinks of each choice.
void add_predictions(const ChoiceTask& task, const ChoiceResult& result, const char* weights,
                     std::string& lines)
{
    for (std::size_t number = 0; number < task.items.size(); ++number) {
        Json::Array likelihoods;
        Json::Array greedy;
        for (const ChoiceScore& score : result.scores[number]) {
            likelihoods.push_back(score.log_likelihood);
            greedy.push_back(score.greedy);
        }
        const ChoiceWinners winners = choice_winners(result.scores[number], task.items[number].choices);
        Json line;
        line.set("task", task.name);
        line.set("weights", weights);
        line.set("question", static_cast<std::int64_t>(number));
        line.set("log_likelihoods", std::move(likelihoods));
        line.set("greedy", std::move(greedy));
        line.set("gold", static_cast<std::int64_t>(task.items[number].gold));
        line.set("acc", static_cast<std::int64_t>(winners.by_sum));
        line.set("acc_norm", static_cast<std::int64_t>(winners.by_character));
        line.set("acc_bytes", static_cast<std::int64_t>(winners.by_byte));
        lines += line.dump() + "\n";
    }
}

/// The original first, where there is one, then what is evaluated.
Result<Output> score_tasks(const std::vector<ChoiceTask>& tasks, const EvaluateOptions& options,
                           const Subject& subject, const std::optional<Subject>& original, Backend& backend,
                           Monitor& monitor)
{
    Table table({"task", "weights", "questions", "acc %", "acc_norm %", "acc_bytes %"});
    Json::Array list;
    std::string lines;
    const ChoiceOptions choice{options.perplexity.memory_budget_bytes};
    std::vector<std::pair<const char*, EvaluatedModel>> models;
    if (original)
        models.emplace_back("original", original->evaluated());
    models.emplace_back(original ? "compressed" : "evaluated", subject.evaluated());
    for (const ChoiceTask& task : tasks) {
        for (const auto& [name, model] : models) {
            auto result = multiple_choice(model.model, *model.weights, task, choice, backend, monitor);
            if (!result)
                return result.error();
            table.add({task.name, name, std::to_string(result->items), percent(result->accuracy),
                       percent(result->per_character), percent(result->per_byte)});
            Json entry = to_json(*result);
            entry.set("weights", name);
            list.push_back(std::move(entry));
            add_predictions(task, *result, name, lines);
        }
    }
    if (!options.predictions.empty()) {
        if (auto written = write_text_file(options.predictions, lines, options.force); !written)
            return written.error();
    }
    Output output;
    output.document = std::move(list);
    output.text = table.text();
    return output;
}

/// All files are read before anything is computed.
Result<std::vector<ChoiceTask>> read_tasks(const EvaluateOptions& options)
{
    if (options.text.empty() && options.tasks.empty())
        return usage_error("there is nothing to measure", {},
                           "Give --text FILE, --tasks FILE.jsonl, or both");
    if (!options.predictions.empty() && options.tasks.empty())
        return usage_error("--predictions belongs to --tasks", "--predictions");
    if (!options.perplexity.state.empty() && options.text.empty())
        return usage_error("--resume belongs to --text", "--resume");
    std::error_code problem;
    if (!options.predictions.empty() && std::filesystem::exists(options.predictions, problem)
        && !options.force)
        return bad_input("this exists already", options.predictions.string(), "Replace it with --force");
    std::vector<ChoiceTask> tasks;
    for (const std::filesystem::path& file : options.tasks) {
        auto task = read_choice_task(file);
        if (!task)
            return task.error();
        tasks.push_back(std::move(*task));
    }
    return tasks;
}

/// How the layers of a run round their inputs, each rule with its number of layers.
std::map<std::pair<int, double>, std::int64_t> rounded_layers(const Run& run)
{
    std::map<std::pair<int, double>, std::int64_t> layers;
    for (const LayerResult& result : run.results()) {
        const Method* method = find_method(result.method);
        auto parameters = method ? Parameters::from_json(method->info(), result.parameters)
                                 : internal_error("no such method");
        const ActivationQuantization rounding =
            parameters ? activations_of(method->info(), *parameters) : ActivationQuantization{};
        if (rounding.active())
            ++layers[{rounding.bits, rounding.clip}];
    }
    return layers;
}

Json rounding_json(int bits, double clip, Json layers)
{
    Json json;
    json.set("bits", bits);
    json.set("clip", clip);
    json.set("layers", std::move(layers));
    return json;
}

/// What inputs of linears were rounded to in the measurement: a list, empty when to nothing.
Json activations_json(const Subject& subject, const EvaluateOptions& options)
{
    Json list(Json::Array{});
    if (options.activations.active() && options.activations.bits > 0)
        list.push_back(rounding_json(options.activations.bits, options.activations.clip, "all"));
    else if (options.activations.bits == 0 && subject.run)
        for (const auto& [rule, count] : rounded_layers(*subject.run))
            list.push_back(rounding_json(rule.first, rule.second, count));
    return list;
}

/// "activations, keys and values of 8 bits, one range a tensor (30 blocks' as learned)".
std::string simulation_text(const EvaluateOptions& options)
{
    const auto& simulation = options.perplexity.simulation;
    if (!simulation)
        return {};
    std::string ranges = "a range for each token";
    if (simulation->static_ranges)
        ranges = simulation->kept.empty()
                     ? "one range for each tensor, measured on " + simulation->ranges_text.filename().string()
                     : fmt::format("one range for each tensor, those of {} blocks as learned",
                                   simulation->kept.size());
    return fmt::format("activations, keys and values of {} bits: {}\n", simulation->bits, ranges);
}

std::string activations_text(const Subject& subject, const EvaluateOptions& options)
{
    const Json list = activations_json(subject, options);
    std::string text;
    for (const Json& rule : *list.array_if())
        text += fmt::format("{}{} bits with clip {} ({})", text.empty() ? "activations of " : ", ",
                            rule["bits"].integer(), figure(rule["clip"].number()),
                            rule["layers"].is_integer() ? fmt::format("{} layers", rule["layers"].integer())
                                                        : "all layers");
    return text;
}

/// Names weights as an interrupted evaluation has to find them again: headers, sizes and times of a
/// checkpoint's files, and of a run its plan and what its layers came out as.
std::string weights_key(const Subject& subject)
{
    std::string key = subject.model->checkpoint().header_hash();
    for (const std::filesystem::path& file : subject.model->checkpoint().files()) {
        std::error_code problem;
        const auto bytes = std::filesystem::file_size(file, problem);
        const auto changed = std::filesystem::last_write_time(file, problem).time_since_epoch().count();
        key += fmt::format(" {} {}", bytes, changed);
    }
    if (!subject.run)
        return key;
    key += subject.run->plan().to_json().dump();
    for (const LayerResult& result : subject.run->results())
        key += fmt::format(" {} {} {}", result.layer, result.quality.relative_error,
                           result.quality.relative_activation_error);
    return key;
}

/// Everything beside text and windows that an interrupted evaluation depends on.
Result<std::string> state_key(const EvaluateOptions& options, const Subject& subject,
                              const std::optional<Subject>& original, const Backend& backend)
{
    std::string key =
        fmt::format("{}\n{}\n{} {} {}", weights_key(subject), original ? weights_key(*original) : "",
                    options.activations.bits, options.activations.clip, backend.id());
    if (const auto& simulation = options.perplexity.simulation) {
        key += fmt::format(" {} {}", options.simulate, simulation->ranges_samples);
        if (!simulation->ranges_text.empty()) {
            const auto hash = sha256_file(simulation->ranges_text);
            if (!hash)
                return hash.error();
            key += " " + *hash;
        }
    }
    return sha256_hex(key);
}

Result<Output> measure(EvaluateOptions options, Session& session)
{
    auto tasks = read_tasks(options);
    if (!tasks)
        return tasks.error();
    auto subject = open_subject(options.path, session);
    if (!subject)
        return subject.error();
    auto original = open_original(options, *subject, session);
    if (!original)
        return original.error();
    if (auto prepared = prepare_simulation(options, *subject, session); !prepared)
        return prepared.error();
    if (options.activations.bits > 0)
        subject->weights = with_quantized_activations(std::move(subject->weights), options.activations);
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    if (!options.perplexity.state.empty()) {
        auto key = state_key(options, *subject, *original, **backend);
        if (!key)
            return key.error();
        options.perplexity.state_key = std::move(*key);
    }
    Output output;
    if (!options.text.empty()) {
        auto measured = measure_text(options, *subject, *original, **backend, session.monitor());
        if (!measured)
            return measured.error();
        output = std::move(*measured);
    }
    if (!tasks->empty()) {
        auto scored = score_tasks(*tasks, options, *subject, *original, **backend, session.monitor());
        if (!scored)
            return scored.error();
        output.document.set("tasks", std::move(scored->document));
        output.text += scored->text;
    }
    output.document.set("simulate", options.simulate);
    output.text += simulation_text(options);
    if (subject->run && output.document["perplexity"].is_number()) { // reports show it
        if (auto kept = record_evaluation(options.path, output.document); !kept)
            session.monitor().warn("The result is not kept beside the run: " + kept.error().sentence());
    }
    output.document.set("path", options.path.string());
    output.document.set("activations", activations_json(*subject, options));
    if (const std::string rounding = activations_text(*subject, options); !rounding.empty())
        output.text += rounding + "\n";
    output.document.set("rotated", subject->model->rotation() != nullptr);
    output.document.set("kind", subject->run ? "run" : "checkpoint");
    if (subject->run)
        output.document.set("run", to_json(summarize(*subject->run, *subject->model)));
    return output;
}

Result<Output> evaluate(EvaluateOptions options, Session& session)
{
    auto protocol = perplexity_protocol(options.protocol);
    if (!protocol)
        return protocol.error();
    auto budget = session.memory_budget();
    if (!budget)
        return budget.error();
    options.perplexity.protocol = *protocol;
    options.perplexity.memory_budget_bytes = *budget;
    auto output = measure(options, session);
    if (output)
        output->document.set("process", session.process());
    return output;
}

} // namespace

void add_evaluate(Program& program)
{
    auto options = std::make_shared<EvaluateOptions>();
    CLI::App* command = program.add(
        "evaluate", "Perplexity and zero-shot accuracy of a checkpoint, or of a run beside its original",
        [options](Session& session) { return evaluate(*options, session); });
    command->add_option("PATH", options->path, "Checkpoint or run")->required();
    command->add_option("--text", options->text, "Text file for the perplexity")->type_name("FILE");
    command
        ->add_option("--tasks", options->tasks,
                     "Questions with choices, a JSON object a line: zero-shot accuracy (docs/evaluation.md)")
        ->type_name("FILE.jsonl…");
    command
        ->add_option("--predictions", options->predictions,
                     "Write the log likelihood of every choice there, a question a line")
        ->type_name("OUT.jsonl");
    command->add_flag("--force", options->force, "Replace OUT.jsonl if it exists");
    command
        ->add_option("--length", options->perplexity.length,
                     "Tokens of a window (default: 2048, or the model's context if that is shorter)")
        ->check(CLI::PositiveNumber)
        ->type_name("T");
    command
        ->add_option("--stride", options->perplexity.stride, "Tokens between windows (default: the length)")
        ->check(CLI::PositiveNumber)
        ->type_name("S");
    command
        ->add_option("--max-tokens", options->perplexity.max_tokens, "Take only so many tokens of the text")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    command
        ->add_option("--protocol", options->protocol,
                     "gptq: the text cut into chunks (default); windows: a BOS in front of each window")
        ->type_name("P");
    command
        ->add_option("--original", options->original,
                     "Compare with this checkpoint on the same tokens (a run: with its own, by itself)")
        ->type_name("PATH");
    command
        ->add_option("--activation-bits", options->activations.bits,
                     "Round what every linear reads to so many bits a token, 16: not at all (default: as the "
                     "run's methods say)")
        ->check(CLI::IsMember({2, 3, 4, 5, 6, 7, 8, 16}))
        ->type_name("BITS");
    command
        ->add_option("--activation-clip", options->activations.clip,
                     "Largest activation of a token that its grid holds, as a share (default: 0.9)")
        ->check(CLI::Range(0.1, 1.0))
        ->needs("--activation-bits")
        ->type_name("SHARE");
    auto* simulate =
        command
            ->add_option(
                "--simulate", options->simulate,
                "Round what linears read, keys and values to 8 bits: with a range for each token (a8kv8), or "
                "inputs with one fixed range a tensor (a8kv8-static)")
            ->check(CLI::IsMember({"none", "a8kv8", "a8kv8-static"}))
            ->excludes("--activation-bits")
            ->type_name("HOW");
    command
        ->add_option("--ranges-text", options->simulation.ranges_text,
                     "Text that fixed ranges are measured on, unless the run was learned with such")
        ->needs(simulate)
        ->type_name("FILE");
    command->add_option("--ranges-samples", options->simulation.ranges_samples, "Windows of it (default: 64)")
        ->check(CLI::Range(1, 1 << 20))
        ->needs(simulate)
        ->type_name("N");
    command
        ->add_option("--resume", options->perplexity.state,
                     "Keep finished windows of the text in this file and go on from those it holds; it is "
                     "removed at the end")
        ->type_name("FILE");
    command->add_flag("--no-original", options->no_original, "Of a run: leave out the comparison");
}

} // namespace rankscope::cli
