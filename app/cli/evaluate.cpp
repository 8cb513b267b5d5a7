// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/report.h"
#include "app/cli/session.h"
#include "app/cli/table.h"

#include <fmt/format.h>

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

Result<Output> measure(const EvaluateOptions& options, Session& session)
{
    auto subject = open_subject(options.path, session);
    if (!subject)
        return subject.error();
    auto original = open_original(options, *subject, session);
    if (!original)
        return original.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    std::optional<RunSummary> summary;
    if (subject->run)
        summary = summarize(*subject->run, *subject->model);
    Output output;
    if (*original) {
        auto both = compare_on_text((*original)->evaluated(), subject->evaluated(), options.text,
                                    options.perplexity, **backend, session.monitor());
        if (!both)
            return both.error();
        output = report_both(*both, summary ? figure(summary->bits_per_weight) : "–");
    } else {
        auto result = perplexity(subject->model, *subject->weights, options.text, options.perplexity,
                                 **backend, session.monitor());
        if (!result)
            return result.error();
        output = report_one(*result);
    }
    output.document.set("path", options.path.string());
    output.document.set("kind", subject->run ? "run" : "checkpoint");
    if (summary)
        output.document.set("run", to_json(*summary));
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
    CLI::App* command = program.add("evaluate", "Perplexity of a checkpoint, or of a run beside its original",
                                    [options](Session& session) { return evaluate(*options, session); });
    command->add_option("PATH", options->path, "Checkpoint or run")->required();
    command->add_option("--text", options->text, "Text file")->type_name("FILE")->required();
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
    command->add_flag("--no-original", options->no_original, "Of a run: leave out the comparison");
}

} // namespace rankscope::cli
