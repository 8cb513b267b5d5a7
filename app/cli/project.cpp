// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/project.h"

#include "app/cli/jobs.h"
#include "app/cli/report.h"
#include "app/cli/table.h"
#include "core/base/thread_pool.h"

#include <fmt/format.h>

#include <chrono>

namespace rankscope::cli {
namespace {

namespace fs = std::filesystem;

struct ProjectOptions {
    fs::path file;
    // To make one
    fs::path checkpoint;
    fs::path plan;
    fs::path calibration;
    fs::path text;
    std::string budget;
    bool propagate = false;
    bool force = false;
    // To carry it out
    bool run = false;
};

Result<Project> make_project(const ProjectOptions& options, const Session& session)
{
    if (options.plan.empty())
        return usage_error("a project needs a plan", "--plan", "Make one with rankscope-cli plan");
    if (options.calibration.empty() != options.text.empty())
        return usage_error("--calibration and the --text that it was made of belong together");
    if (options.propagate && options.text.empty())
        return usage_error("--propagate needs a calibration and its text", "--propagate");
    auto model = Model::open(options.checkpoint);
    if (!model)
        return model.error();
    auto plan = Plan::read(options.plan);
    if (!plan)
        return plan.error();
    auto calibration = open_calibration(options.calibration);
    if (!calibration)
        return calibration.error();
    auto project = Project::make(**model, *plan, calibration->get(), options.text, session.options().seed);
    if (!project)
        return project.error();
    project->propagate = options.propagate;
    project->budget = options.budget;
    if (auto written = project->write(options.file, options.force); !written)
        return written.error();
    return project;
}

/// The project's own calibration, made now unless it is there.
Result<std::shared_ptr<const CalibrationStore>> calibrated(const Project& project,
                                                           const std::shared_ptr<const Model>& model,
                                                           const fs::path& folder, Session& session)
{
    if (!project.calibration)
        return std::shared_ptr<const CalibrationStore>();
    std::error_code problem;
    if (!fs::exists(folder, problem)) {
        auto budget = session.memory_budget();
        auto backend = session.backend();
        if (!budget || !backend)
            return budget ? backend.error() : budget.error();
        CalibrationOptions options;
        options.samples = project.calibration->samples;
        options.length = project.calibration->length;
        options.activations = project.calibration->activations;
        options.seed = project.calibration->seed;
        options.memory_budget_bytes = *budget;
        options.resume = true;
        if (auto done =
                calibrate(model, project.calibration->text, folder, options, **backend, session.monitor());
            !done)
            return done.error();
    }
    auto store = CalibrationStore::open(folder);
    if (store && (*store)->id() != project.plan.calibration_id)
        return bad_input("this is not the calibration of the project", folder.string(),
                         "Remove it; it is made again");
    return store;
}

/// Goes on with the run that is not in the project's list yet, or begins it.
Result<Project> run_project(Project project, const ProjectOptions& options, Session& session)
{
    const auto start = std::chrono::steady_clock::now();
    auto folder = Project::data_folder(options.file);
    if (!folder)
        return folder.error();
    auto model = project.model();
    if (!model)
        return model.error();
    if (auto same = project.check_text(); !same)
        return same.error();
    std::error_code problem;
    fs::create_directories(*folder / "runs", problem);
    if (problem)
        return io_error("the folder cannot be made: " + problem.message(), (*folder / "runs").string());
    auto calibration = calibrated(project, *model, *folder / "calibration", session);
    if (!calibration)
        return calibration.error();
    RunOptions how;
    how.resume = true;
    how.propagate = project.propagate;
    if (project.calibration) {
        how.text = project.calibration->text;
        how.samples = project.calibration->samples;
        how.length = project.calibration->length;
    }
    const std::string name = fmt::format("{:03}", project.runs.size() + 1);
    if (auto run = compress(*model, project.plan, *calibration, *folder / "runs" / name, how, session); !run)
        return run.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    project.runs.push_back({name, RANKSCOPE_VERSION, (*backend)->id(), thread_count(),
                            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                            project.plan_hash()});
    if (auto written = project.write(options.file, true); !written)
        return written.error();
    return project;
}

Output describe(const Project& project, const fs::path& file)
{
    Output output;
    output.document.set("file", file.string());
    output.document.set("checkpoint", project.checkpoint.string());
    output.document.set("architecture", project.architecture);
    output.document.set("calibration",
                        project.calibration ? Json(project.calibration->text.string()) : Json());
    output.document.set("propagate", project.propagate);
    output.document.set("budget", project.budget);
    output.document.set("seed", std::to_string(project.plan.seed));
    output.document.set("plan_hash", project.plan_hash());
    Json list(Json::Array{});
    Table table({"run", "program", "backend", "threads", "seconds", "plan"});
    for (const ProjectRun& run : project.runs) {
        const bool current = run.plan_hash == project.plan_hash();
        Json entry;
        entry.set("name", run.name);
        entry.set("program", run.program);
        entry.set("backend", run.backend);
        entry.set("threads", run.threads);
        entry.set("seconds", run.seconds);
        entry.set("current_plan", current);
        list.push_back(std::move(entry));
        table.add({run.name, run.program, run.backend, std::to_string(run.threads), figure(run.seconds),
                   current ? "this one" : "an earlier one"});
    }
    output.document.set("runs", std::move(list));
    output.text = fmt::format("{}, {} · {} layers in the plan · seed {}{}\n", project.checkpoint.string(),
                              project.architecture, project.plan.rows.size(), project.plan.seed,
                              project.propagate ? " · block after block" : "")
                  + (project.runs.empty() ? std::string("No run yet.\n") : table.text());
    return output;
}

Result<Output> project_command(const ProjectOptions& options, Session& session)
{
    const bool making = !options.checkpoint.empty();
    if (!making && (!options.plan.empty() || !options.calibration.empty() || !options.text.empty()))
        return usage_error("a project is made of a checkpoint", "--checkpoint",
                           "Give it, or leave the other options out to open a project");
    auto project = making ? make_project(options, session) : Project::read(options.file);
    if (project && options.run)
        project = run_project(std::move(*project), options, session);
    if (!project)
        return project.error();
    Output output = describe(*project, options.file);
    output.document.set("process", session.process());
    return output;
}

} // namespace

void add_project(Program& program)
{
    auto options = std::make_shared<ProjectOptions>();
    CLI::App* command =
        program.add("project", "Keeps what names a result in one file, shows it, or carries it out",
                    [options](Session& session) { return project_command(*options, session); });
    command->add_option("FILE", options->file, "NAME.rankscope.json; runs go to NAME.rankscope beside it")
        ->required();
    command->add_option("--checkpoint", options->checkpoint, "Make the project: of this checkpoint")
        ->type_name("PATH");
    command->add_option("--plan", options->plan, "… and this plan")->type_name("PLAN.json");
    command->add_option("--calibration", options->calibration, "… with the calibration that it was made with")
        ->type_name("CAL");
    command->add_option("--text", options->text, "… and the text that this was made of")->type_name("FILE");
    command->add_option("--budget", options->budget, "… and, as a note, what the plan was fitted to")
        ->type_name("SIZE");
    command->add_flag("--propagate", options->propagate, "Its runs go block after block (see compress)");
    command->add_flag("--run", options->run, "Calibrate if need be, and carry the plan out or go on with it");
    add_force(command, options->force);
}

} // namespace rankscope::cli
