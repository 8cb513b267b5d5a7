// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/report.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/run/block_curves.h"

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

/// How far learning brought each block; empty where nothing was learned by blocks.
Result<Output> learned_blocks(const std::filesystem::path& run)
{
    auto curves = read_block_curves(run);
    if (!curves)
        return curves.error();
    Output output;
    output.document = Json(Json::Array{});
    Table table({"block", "loss: nearest", "learned", "held out: nearest", "learned", "at step", "rate"});
    const auto held_out = [](const LossPoint& point) {
        return point.held_out < 0.0 ? std::string("–") : figure(point.held_out);
    };
    for (const BlockCurve& curve : *curves) {
        const LossPoint& start = curve.points.front();
        const LossPoint& best = curve.best();
        table.add({std::to_string(curve.block), figure(start.training), figure(best.training),
                   held_out(start), held_out(best), std::to_string(best.step), figure(curve.learning_rate)});
        Json row;
        row.set("block", curve.block);
        row.set("step", std::int64_t{best.step});
        row.set("nearest", start.training);
        row.set("learned", best.training);
        row.set("nearest_held_out", start.held_out < 0.0 ? Json() : Json(start.held_out));
        row.set("learned_held_out", best.held_out < 0.0 ? Json() : Json(best.held_out));
        row.set("learning_rate", curve.learning_rate);
        row.set("halvings", std::int64_t{curve.halvings});
        output.document.push_back(std::move(row));
    }
    if (!curves->empty())
        output.text = "\n" + table.text();
    return output;
}

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
    auto learned = learned_blocks(options.out);
    if (!learned)
        return learned.error();
    const RunSummary summary = summarize(**run, **model);
    Json layers(Json::Array{});
    for (const LayerResult& result : (*run)->results())
        layers.push_back(to_json(result));
    Output output;
    output.document = to_json(summary);
    output.document.set("out", options.out.string());
    output.document.set("layers", std::move(layers));
    output.document.set("learned_blocks", std::move(learned->document));
    output.document.set("process", session.process());
    output.text =
        layer_table((*run)->results()) + learned->text
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
    command
        ->add_option("--text", options->run.text,
                     "Text that rows with objective=block learn from, and that --propagate sends through "
                     "the blocks")
        ->type_name("FILE");
    command->add_option("--samples", options->run.samples, "Sequences of that text (default: 128)")
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("N");
    command
        ->add_option("--length", options->run.length,
                     "Tokens of a sequence (default: min(2048, the context))")
        ->type_name("N");
    command->add_flag("--propagate", options->run.propagate,
                      "Block after block, each fed the output of the compressed blocks before it");
    command->add_option("--out", options->out, "Folder for the run")->type_name("RUN")->required();
    auto* resume = command->add_flag("--resume", options->run.resume, "Go on where the run stopped");
    add_force(command, options->run.replace)->excludes(resume);
}

} // namespace rankscope::cli
