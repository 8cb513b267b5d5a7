// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <span>

namespace rankscope::cli {
namespace {

std::string_view kind_name(ErrorKind kind)
{
    switch (kind) {
    case ErrorKind::Internal:
        return "internal";
    case ErrorKind::Usage:
        return "usage";
    case ErrorKind::BadInput:
        return "bad_input";
    case ErrorKind::Io:
        return "io";
    case ErrorKind::NoSpace:
        return "no_space";
    case ErrorKind::NoDevice:
        return "no_device";
    case ErrorKind::Cancelled:
        return "cancelled";
    }
    return "internal";
}

/// The sentence on standard error, and with --json the same as the one document.
int fail(const Error& error, bool json)
{
    fmt::print(stderr, "rankscope-cli: {}\n", error.sentence());
    const int status = exit_status(error.kind);
    if (json) {
        Json content;
        content.set("kind", kind_name(error.kind));
        content.set("message", error.message);
        content.set("where", error.where);
        content.set("remedy", error.remedy);
        content.set("exit_status", status);
        Json document;
        document.set("error", std::move(content));
        fmt::print("{}\n", document.dump(2));
    }
    return status;
}

void add_global_options(Program& program)
{
    CLI::App& app = program.app;
    GlobalOptions& global = program.global;
    const std::string group = "Global options, before or after the subcommand";
    app.add_option("--threads", global.threads, "Threads (default: physical cores)")
        ->check(CLI::Range(0, 4096))
        ->type_name("N")
        ->group(group);
    app.add_option(
           "--backend", global.backend,
           "auto, cpu, cpu:bf16 or vulkan[:INDEX][:half]; auto takes a hardware Vulkan device if there is one, else the CPU")
        ->type_name("DEVICE")
        ->group(group);
    app.add_option("--memory", global.memory,
                   "Working-set budget, such as 6GiB (default: 70 % of what is available)")
        ->type_name("SIZE")
        ->group(group);
    app.add_option("--seed", global.seed, "Seed of everything random (default: 0)")
        ->type_name("N")
        ->group(group);
    app.add_flag("--json", global.json, "One JSON document on standard output")->group(group);
    auto* quiet = app.add_flag("--quiet", global.quiet, "No progress and no warnings")->group(group);
    app.add_flag("--verbose", global.verbose, "Say more: device, threads, time, peak memory, kernels of a graphics device")
        ->group(group)
        ->excludes(quiet);
}

void add_subcommands(Program& program)
{
    add_info(program);
    add_tokenize(program);
    add_logits(program);
    add_rotate(program);
    add_calibrate(program);
    add_stats(program);
    add_methods(program);
    add_plan(program);
    add_compress(program);
    add_project(program);
    add_evaluate(program);
    add_compare(program);
    add_export(program);
    add_decompose(program);
    add_smooth(program);
    add_sweep(program);
    add_devices(program);
    add_demo(program);
    add_reference(program);
}

Result<Output> act(const Program& program, Session& session)
{
    const auto chosen = program.app.get_subcommands();
    if (chosen.empty())
        return usage_error("a subcommand is missing", {}, "Run rankscope-cli --help");
    try {
        return program.actions.at(chosen.front())(session);
    } catch (const Cancelled&) {
        return Error{ErrorKind::Cancelled, "stopped on request; nothing half-written was left", {}, {}};
    } catch (const BackendFailure& failure) {
        return failure.error();
    } catch (const std::bad_alloc&) {
        return Error{ErrorKind::NoSpace, "memory ran out", {}, "Lower --memory or --threads"};
    }
}

int run(Program& program)
{
    Session session(program.global);
    auto output = act(program, session);
    session.monitor().clear();
    if (!output)
        return fail(output.error(), program.global.json);
    const std::string text = program.global.json ? output->document.dump(2) + "\n" : output->text;
    const bool printed =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (program.global.verbose)
        fmt::print(stderr, "{}{}\n", session.kernel_table(), session.process_line());
    return printed ? 0 : fail(errno_error("write", "standard output"), false);
}

Error parse_error(const CLI::App& app, const CLI::ParseError& problem)
{
    const auto chosen = app.get_subcommands();
    const std::string command = chosen.empty() ? std::string() : chosen.front()->get_name() + " ";
    std::string message = problem.what();
    if (const auto rest = app.remaining(); chosen.empty() && !rest.empty())
        message = fmt::format("there is no subcommand \"{}\"", rest.front());
    return usage_error(message, chosen.empty() ? std::string() : chosen.front()->get_name(),
                       fmt::format("Run rankscope-cli {}--help", command));
}

} // namespace

CLI::App* Program::add(const std::string& name, const std::string& description, Action action)
{
    CLI::App* command = app.add_subcommand(name, description);
    command->fallthrough(); // global options may follow the subcommand
    actions.emplace(command, std::move(action));
    return command;
}

CLI::Option* add_path(CLI::App* command, std::filesystem::path& path)
{
    return command->add_option("PATH", path, "Checkpoint: a Hugging Face folder or a file")->required();
}

CLI::Option* add_force(CLI::App* command, bool& force)
{
    return command->add_flag("--force", force, "Replace what exists already");
}

int main(int argc, char** argv)
{
    catch_stop_signals();
    Program program;
    program.app.description("Compresses language-model weights as W ≈ Q + L·R and measures what that costs.");
    program.app.name("rankscope-cli");
    program.app.set_version_flag("--version", "rankscope-cli " RANKSCOPE_VERSION);
    program.app.require_subcommand(1);
    program.app.failure_message(CLI::FailureMessage::simple);
    add_global_options(program);
    add_subcommands(program);
    try {
        program.app.parse(argc, argv);
    } catch (const CLI::ParseError& problem) {
        if (problem.get_exit_code() == 0)
            return program.app.exit(problem); // --help, --version
        const auto arguments = std::span(argv, static_cast<std::size_t>(argc));
        const bool json = std::any_of(arguments.begin(), arguments.end(), [](const char* argument) {
            return std::strcmp(argument, "--json") == 0;
        });
        return fail(parse_error(program.app, problem), json);
    }
    return run(program);
}

} // namespace rankscope::cli

int main(int argc, char** argv)
{
    try {
        return rankscope::cli::main(argc, argv);
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "rankscope-cli: %s.\n", problem.what());
        return 1;
    }
}
