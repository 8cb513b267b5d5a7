// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "core/model/model.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct RotateOptions {
    std::filesystem::path path;
    std::filesystem::path out;
    bool force = false;
};

Result<Output> rotate(const RotateOptions& options, Session& session)
{
    const std::uint64_t seed = session.options().seed;
    if (auto written = write_rotated_model(options.path, seed, options.out, options.force); !written)
        return written.error();
    auto model = Model::open(options.out);
    if (!model)
        return model.error();
    Output output;
    output.document.set("out", options.out.string());
    output.document.set("checkpoint", (*model)->rotation()->checkpoint.string());
    output.document.set("hash", (*model)->checkpoint().header_hash());
    output.document.set("seed", seed);
    output.text =
        fmt::format("{}: {} rotated with seed {}; calibrate, plan and compress it like any checkpoint\n",
                    options.out.string(), options.path.string(), seed);
    return output;
}

} // namespace

void add_rotate(Program& program)
{
    auto options = std::make_shared<RotateOptions>();
    CLI::App* command = program.add(
        "rotate", "The same model with activations that have no outliers, for 4-bit activations (QuaRot)",
        [options](Session& session) { return rotate(*options, session); });
    add_path(command, options->path);
    command
        ->add_option("--out", options->out,
                     "Folder of the rotated model; it names the checkpoint, whose weights are turned as they "
                     "are read")
        ->type_name("ROTATED")
        ->required();
    add_force(command, options->force);
}

} // namespace rankscope::cli
