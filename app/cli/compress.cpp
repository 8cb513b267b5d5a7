// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/report.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct CompressOptions {
    std::filesystem::path path;
    std::filesystem::path plan;
    std::filesystem::path calibration;
    std::filesystem::path out;
    RunOptions run;
};

Result<Output> compress_command(const CompressOptions& options, Session& session)
{
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto plan = Plan::read(options.plan);
    if (!plan)
        return plan.error();
    auto calibration = open_calibration(options.calibration);
    if (!calibration)
        return calibration.error();
    auto run = compress(*model, *plan, *calibration, options.out, options.run, session);
    if (!run)
        return run.error();
    const RunSummary summary = summarize(**run, **model);
    Json layers(Json::Array{});
    for (const LayerResult& result : (*run)->results())
        layers.push_back(to_json(result));
    Output output;
    output.document = to_json(summary);
    output.document.set("out", options.out.string());
    output.document.set("layers", std::move(layers));
    output.document.set("process", session.process());
    output.text =
        layer_table((*run)->results())
        + fmt::format("\n{} layers · {} bits per weight · {} instead of {} · mean activation error {}\n",
                      summary.layers, figure(summary.bits_per_weight),
                      format_byte_size(summary.compressed_bytes), format_byte_size(summary.original_bytes),
                      figure(summary.mean_activation_error));
    return output;
}

} // namespace

void add_compress(Program& program)
{
    auto options = std::make_shared<CompressOptions>();
    CLI::App* command =
        program.add("compress", "Runs a plan; finished layers are saved as they come",
                    [options](Session& session) { return compress_command(*options, session); });
    add_path(command, options->path);
    command->add_option("--plan", options->plan, "Plan file")->type_name("PLAN.json")->required();
    command->add_option("--calibration", options->calibration, "Calibration that the plan was made with")
        ->type_name("CAL");
    command->add_option("--text", options->run.text, "Text that rows with objective=block learn from")
        ->type_name("FILE");
    command->add_option("--samples", options->run.samples, "Sequences of that text (default: 128)")
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("N");
    command->add_option("--length", options->run.length, "Tokens of a sequence (default: min(2048, the context))")
        ->type_name("N");
    command->add_option("--out", options->out, "Folder for the run")->type_name("RUN")->required();
    auto* resume = command->add_flag("--resume", options->run.resume, "Go on where the run stopped");
    add_force(command, options->run.replace)->excludes(resume);
}

} // namespace rankscope::cli
