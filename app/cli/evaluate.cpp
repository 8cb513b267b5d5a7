// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/report.h"
#include "app/cli/session.h"
#include "app/cli/table.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct EvaluateOptions {
    std::filesystem::path path;
    std::filesystem::path text;
    std::string protocol = "gptq";
    PerplexityOptions perplexity;
    bool no_original = false;
};

Result<PerplexityResult> measure(const std::shared_ptr<const Model>& model,
                                 const std::shared_ptr<const Run>& run, const EvaluateOptions& options,
                                 Session& session)
{
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    session.monitor().set_detail(run ? "compressed" : "original");
    const auto weights = run ? run_weights(model, run) : checkpoint_weights(model);
    return perplexity(model, *weights, options.text, options.perplexity, **backend, session.monitor());
}

Result<Output> evaluate_checkpoint(const EvaluateOptions& options, Session& session)
{
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto result = measure(*model, nullptr, options, session);
    if (!result)
        return result.error();
    Output output;
    output.document = to_json(*result);
    output.document.set("path", options.path.string());
    output.document.set("kind", "checkpoint");
    output.text = fmt::format("perplexity {}\n", describe(*result));
    return output;
}

Result<Output> evaluate_run(const EvaluateOptions& options, Session& session)
{
    auto run = Run::open(options.path);
    if (!run)
        return run.error();
    if (!(*run)->complete())
        session.monitor().warn(
            "The run is not finished: layers that are missing count as they are in the checkpoint.");
    auto model = (*run)->model();
    if (!model)
        return model.error();
    Output output;
    Json original;
    Table table({"weights", "perplexity", "±", "bits/weight"});
    std::string named;
    if (!options.no_original) {
        auto before = measure(*model, nullptr, options, session);
        if (!before)
            return before.error();
        original = to_json(*before);
        table.add({"original", figure(before->perplexity), figure(before->standard_error), "–"});
    }
    auto after = measure(*model, *run, options, session);
    if (!after)
        return after.error();
    const RunSummary summary = summarize(**run, **model);
    table.add({"compressed", figure(after->perplexity), figure(after->standard_error),
               figure(summary.bits_per_weight)});
    output.document = to_json(*after);
    output.document.set("path", options.path.string());
    output.document.set("kind", "run");
    output.document.set("original", std::move(original));
    output.document.set("run", to_json(summary));
    output.text = table.text()
                  + fmt::format("{} protocol, {} windows of {} tokens of {}\n", id(after->protocol),
                                after->windows, after->length, after->text_file);
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
    auto output =
        Run::is_run(options.path) ? evaluate_run(options, session) : evaluate_checkpoint(options, session);
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
    command->add_flag("--no-original", options->no_original, "Of a run: leave out the original's perplexity");
}

} // namespace rankscope::cli
