// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/session.h"
#include "core/run/run.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace rankscope::cli {

/// What `plan` is asked for; also used by the demonstration.
struct PlanRequest {
    std::string method;
    std::optional<std::int64_t> bits;
    std::optional<std::int64_t> group;
    std::optional<std::string> rank; ///< a number, or a share such as 10%
    std::string layers; ///< globs; empty: all
    std::vector<std::string> settings;
    std::uint64_t seed = 0;
};

/// One plan for all layers with the overrides applied. Of bits, group and rank a method takes those that it
/// has.
Result<Plan> make_plan(const Model& model, const CalibrationStore* calibration, const PlanRequest& request);

/// Runs a plan with progress on the session's line, then opens the run.
Result<std::shared_ptr<const Run>> compress(std::shared_ptr<const Model> model, const Plan& plan,
                                            std::shared_ptr<const CalibrationStore> calibration,
                                            const std::filesystem::path& folder, RunOptions options,
                                            Session& session);

/// The calibration of that folder, or none for an empty path.
Result<std::shared_ptr<const CalibrationStore>> open_calibration(const std::filesystem::path& folder);

} // namespace rankscope::cli
