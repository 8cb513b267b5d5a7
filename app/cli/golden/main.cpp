// SPDX-License-Identifier: GPL-3.0-or-later
// rankscope-golden: runs a folder of known answers through core (design page cli.md).
#include "app/cli/golden/handlers.h"

#include "core/plan/layer_plan.h"
#include "gpu/vulkan_backend.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <clocale>
#include <cmath>
#include <cstdio>

namespace rankscope::golden {
namespace {

struct Outcome {
    std::string name;
    std::string method;
    bool passed = false;
    double worst = 0.0;
    std::string worst_name;
    std::string reason;
};

/// Inputs that belong together have matching shapes, and are numbers; handlers rely on it.
Status check_inputs(const GoldenCase& golden)
{
    for (const char* name : {"W", "H", "X", "x"})
        if (!golden.tensor(name).allFinite())
            return bad_input(fmt::format("tensor {} holds a value that is not finite", name));
    const MatrixD& hessian = golden.tensor("H");
    if (hessian.rows() != hessian.cols())
        return bad_input("tensor H is not square");
    if (golden.has("W")) {
        const Index inputs = golden.tensor("W").cols();
        const auto fits = [&](const char* name, Index size) { return !golden.has(name) || size == inputs; };
        if (!fits("H", hessian.rows()) || !fits("X", golden.tensor("X").rows())
            || !fits("signs_right", golden.tensor("signs_right").cols())
            || (golden.has("signs_left") && golden.tensor("signs_left").cols() != golden.tensor("W").rows()))
            return bad_input("the inputs of the case do not fit to the shape of W");
    }
    if (const Json* bits = golden.parameters().find("bits");
        bits && (bits->integer() < 2 || bits->integer() > 8))
        return usage_error("parameter bits is not in 2 … 8");
    return {};
}

Status check(const GoldenCase& golden, Backend& backend, Verdict& verdict)
{
    const Handler* handler = find_handler(golden.method());
    if (!handler)
        return usage_error("this program does not know the method '" + golden.method() + "'");
    for (const std::string_view tensor : handler->needs)
        if (!golden.has(tensor))
            return bad_input("the case holds no tensor " + std::string(tensor));
    if (auto sound = check_inputs(golden); !sound)
        return sound;
    return handler->check(golden, backend, verdict);
}

Outcome run_case(const std::filesystem::path& file, Backend& backend)
{
    Outcome outcome;
    outcome.name = file.stem().string();
    const auto golden = GoldenCase::read(file);
    if (!golden) {
        outcome.reason = golden.error().sentence();
        return outcome;
    }
    outcome.method = golden->method();
    Verdict verdict(*golden);
    if (const auto status = check(*golden, backend, verdict); !status)
        verdict.fail(status.error().sentence());
    else
        verdict.finish();
    outcome.passed = verdict.passed();
    outcome.worst = verdict.worst();
    outcome.worst_name = verdict.worst_name();
    outcome.reason = verdict.reason();
    return outcome;
}

Result<std::vector<std::filesystem::path>> case_files(const std::filesystem::path& folder,
                                                      const std::string& filter)
{
    std::error_code problem;
    std::vector<std::filesystem::path> files;
    for (std::filesystem::directory_iterator entry(folder, problem), end; !problem && entry != end;
         entry.increment(problem)) {
        const auto& path = entry->path();
        if (path.extension() == ".json" && (filter.empty() || glob_match_any(filter, path.stem().string())))
            files.push_back(path);
    }
    if (problem)
        return io_error("could not list the folder (" + problem.message() + ")", folder.string(),
                        "Check the path.");
    if (files.empty())
        return bad_input("no case matches here: NAME.json files were expected", folder.string());
    std::sort(files.begin(), files.end());
    return files;
}

void print(const Outcome& outcome)
{
    std::string figure = outcome.reason;
    if (figure.empty())
        figure = fmt::format("{:.3g} × tolerance ({})", outcome.worst, outcome.worst_name);
    fmt::print("{} {:<32} {}\n", outcome.passed ? "passed" : "FAILED", outcome.name, figure);
    std::fflush(stdout);
}

Json to_json(const Outcome& outcome)
{
    Json json{Json::Object{}};
    json.set("name", outcome.name);
    json.set("method", outcome.method);
    json.set("passed", outcome.passed);
    json.set("worst_deviation", std::isfinite(outcome.worst) ? Json(outcome.worst) : Json());
    json.set("worst", outcome.worst_name);
    if (!outcome.reason.empty())
        json.set("reason", outcome.reason);
    return json;
}

struct Options {
    std::string folder;
    std::string backend = "auto";
    std::string filter;
    bool json = false;
};

Status run(const Options& options, int& failed)
{
    auto files = case_files(options.folder, options.filter);
    if (!files)
        return files.error();
    auto backend = open_backend(options.backend);
    if (!backend)
        return backend.error();
    int passed = 0;
    Json cases{Json::Array{}};
    for (const auto& file : *files) {
        const Outcome outcome = run_case(file, **backend);
        ++(outcome.passed ? passed : failed);
        if (options.json)
            cases.push_back(to_json(outcome));
        else
            print(outcome);
    }
    if (!options.json) {
        fmt::print("{} passed, {} failed\n", passed, failed);
        return {};
    }
    Json report{Json::Object{}};
    report.set("folder", options.folder);
    report.set("backend", (*backend)->id());
    report.set("cases", std::move(cases));
    report.set("passed", passed);
    report.set("failed", failed);
    fmt::print("{}\n", report.dump(2));
    return {};
}

} // namespace
} // namespace rankscope::golden

int main(int argc, char** argv)
{
    std::setlocale(LC_NUMERIC, "C");
    using namespace rankscope;
    golden::Options options;
    CLI::App app("Runs the known answers of a folder (NAME.json + NAME.safetensors) and compares.",
                 "rankscope-golden");
    app.add_option("DIR", options.folder, "Folder with the cases")->required();
    app.add_option("--backend", options.backend, "auto, cpu, cpu:bf16, vulkan or vulkan:INDEX[:half]")->capture_default_str();
    app.add_option("--filter", options.filter,
                   "Only cases whose name matches one of these patterns, comma-separated");
    app.add_flag("--json", options.json, "Print one JSON document");
    app.set_version_flag("--version", RANKSCOPE_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : exit_status(ErrorKind::Usage);
    }
    int failed = 0;
    try {
        if (const auto status = golden::run(options, failed); !status) {
            fmt::print(stderr, "rankscope-golden: {}\n", status.error().sentence());
            return exit_status(status.error().kind);
        }
    } catch (const BackendFailure& failure) {
        fmt::print(stderr, "rankscope-golden: {}\n", failure.error().sentence());
        return exit_status(failure.error().kind);
    } catch (const std::exception& failure) {
        fmt::print(stderr, "rankscope-golden: {}.\n", failure.what());
        return exit_status(ErrorKind::Internal);
    }
    return failed == 0 ? 0 : 1;
}
