// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "core/calibration/calibration_store.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

struct CalibrateOptions {
    std::filesystem::path path;
    std::filesystem::path text;
    std::filesystem::path out;
    CalibrationOptions calibration;
};

Result<Output> run_calibration(CalibrateOptions options, Session& session)
{
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto budget = session.memory_budget();
    if (!budget)
        return budget.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    options.calibration.memory_budget_bytes = *budget;
    options.calibration.seed = session.options().seed;
    if (auto done =
            calibrate(*model, options.text, options.out, options.calibration, **backend, session.monitor());
        !done)
        return done.error();
    auto store = CalibrationStore::open(options.out);
    if (!store)
        return store.error();
    const CalibrationSource& source = (*store)->source();
    Output output;
    output.document.set("out", options.out.string());
    output.document.set("id", (*store)->id());
    output.document.set("text_file", source.text_file);
    output.document.set("text_hash", source.text_hash);
    output.document.set("tokens", source.tokens);
    output.document.set("samples", std::int64_t{source.samples});
    output.document.set("length", std::int64_t{source.length});
    output.document.set("activation_bits",
                        source.activations.active() ? Json(source.activations.bits) : Json());
    output.document.set("groups", static_cast<std::uint64_t>((*store)->groups().size()));
    output.document.set("process", session.process());
    output.text =
        fmt::format("{}: moments of {} inputs from {} tokens ({} sequences of {})\n", options.out.string(),
                    (*store)->groups().size(), source.tokens, source.samples, source.length);
    return output;
}

} // namespace

void add_calibrate(Program& program)
{
    auto options = std::make_shared<CalibrateOptions>();
    CLI::App* command =
        program.add("calibrate", "Second moments and statistics of every linear layer's input, from a text",
                    [options](Session& session) { return run_calibration(*options, session); });
    add_path(command, options->path);
    command->add_option("--text", options->text, "Text file")->type_name("FILE")->required();
    command->add_option("--out", options->out, "Folder for the calibration")->type_name("CAL")->required();
    command
        ->add_option("--samples", options->calibration.samples,
                     "Sequences, from the start of the text (default: 128)")
        ->check(CLI::PositiveNumber)
        ->type_name("N");
    command
        ->add_option("--length", options->calibration.length,
                     "Tokens of a sequence (default: 2048, or the model's context if that is shorter)")
        ->check(CLI::PositiveNumber)
        ->type_name("T");
    command
        ->add_option("--quantized-activations", options->calibration.activations.bits,
                     "Also the covariances of activations rounded to so many bits, which LRC needs")
        ->check(CLI::Range(2, 8))
        ->type_name("BITS");
    command
        ->add_option("--activation-clip", options->calibration.activations.clip,
                     "Largest activation of a token that its grid holds, as a share (default: 0.9)")
        ->check(CLI::Range(0.1, 1.0))
        ->type_name("SHARE");
    command
        ->add_option("--threshold", options->calibration.thresholds,
                     "Also count activations that reach this size, besides 6; may be repeated")
        ->check(CLI::PositiveNumber)
        ->type_name("T");
    command->add_flag("--resume", options->calibration.resume,
                      "Go on with an interrupted calibration, from its last finished block");
    add_force(command, options->calibration.replace);
}

} // namespace rankscope::cli
