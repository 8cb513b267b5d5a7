// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"

#include "core/base/log.h"
#include "core/methods/needed_moments.h"

#include <fmt/format.h>

namespace rankscope::cli {

Result<Plan> make_plan(const Model& model, const CalibrationStore* calibration, const PlanRequest& request)
{
    auto method = require_method(request.method);
    if (!method)
        return method.error();
    std::map<std::string, ParameterValue, std::less<>> given;
    std::vector<std::pair<const char*, ParameterValue>> options;
    if (request.bits)
        options.emplace_back("bits", *request.bits);
    if (request.group)
        options.emplace_back("group", *request.group);
    if (request.rank)
        options.emplace_back("rank", *request.rank);
    for (auto& [name, value] : options) {
        if ((*method)->info().find(name))
            given.emplace(name, std::move(value));
        else
            log::info(
                fmt::format("Method {} has no parameter {}: --{} is not used.", request.method, name, name));
    }
    auto plan = uniform_plan(model, request.method, given, request.seed, request.layers);
    if (!plan)
        return plan.error();
    for (const std::string& setting : request.settings) {
        if (auto applied = apply_setting(*plan, setting, &model); !applied)
            return applied.error();
    }
    if (auto legal = plan->check(model); !legal)
        return legal.error();
    if (calibration) {
        if (auto fits = calibration->check(model); !fits)
            return fits.error();
        for (const LayerPlan& row : plan->rows) {
            if (!row.include)
                continue;
            const MethodInfo& info = find_method(row.method)->info();
            if (auto served = check_calibration(info, row.parameters, calibration, row.layer); !served)
                return served.error();
        }
        plan->calibration_id = calibration->id();
    }
    return plan;
}

Result<std::shared_ptr<const Run>> compress(std::shared_ptr<const Model> model, const Plan& plan,
                                            std::shared_ptr<const CalibrationStore> calibration,
                                            const std::filesystem::path& folder, RunOptions options,
                                            Session& session)
{
    auto budget = session.memory_budget();
    if (!budget)
        return budget.error();
    options.memory_budget_bytes = *budget;
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    ProgressLine& progress = session.monitor();
    RunEvents events;
    events.layer_changed = [&](const std::string& layer, LayerState state, const std::string& message) {
        if (state == LayerState::Running)
            progress.set_detail(layer);
        else if (state == LayerState::Failed)
            progress.warn("failed: " + message);
        else if (state == LayerState::Done)
            log::info(fmt::format("{}: {}", layer, message));
    };
    if (auto done = Run::execute(model, plan, calibration, folder, options, **backend, progress, events);
        !done)
        return done.error();
    return Run::open(folder);
}

Result<std::shared_ptr<const CalibrationStore>> open_calibration(const std::filesystem::path& folder)
{
    if (folder.empty())
        return std::shared_ptr<const CalibrationStore>();
    return CalibrationStore::open(folder);
}

} // namespace rankscope::cli
