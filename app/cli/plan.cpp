// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct PlanOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::filesystem::path out;
    PlanRequest request;
    bool force = false;
};

std::string parameter_text(const LayerPlan& row, std::string_view name)
{
    const auto& values = row.parameters.values();
    const auto found = values.find(name);
    return found == values.end() ? "–" : to_string(found->second);
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
    if (!options.out.empty()) {
        if (auto written = plan->write(options.out, options.force); !written)
            return written.error();
    }
    const PlanSize size = planned_size(*plan, **model);
    Output output;
    output.document.set("out", options.out.empty() ? Json() : Json(options.out.string()));
    output.document.set("plan", plan->to_json());
    output.document.set("original_bytes", size.original_bytes);
    output.document.set("planned_bytes", size.planned_bytes);
    output.document.set("bits_per_weight", size.bits_per_weight);
    output.text =
        plan_table(*plan, **model)
        + fmt::format("\n{} bits per weight · {} instead of {}{}\n", figure(size.bits_per_weight),
                      format_byte_size(size.planned_bytes), format_byte_size(size.original_bytes),
                      options.out.empty() ? std::string() : " · written to " + options.out.string());
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
    command->add_option("--rank", options->request.rank, "Rank of L·R")->type_name("R");
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
}

} // namespace rankscope::cli
