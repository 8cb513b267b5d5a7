// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/run/run.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace rankscope {

/// The text that a project's calibration is made of.
struct ProjectCalibration {
    std::filesystem::path text; ///< absolute in memory, relative to the project in the file where that is possible
    std::string text_hash;
    Index samples = 0;
    Index length = 0;
    std::uint64_t tokens = 0;
    std::uint64_t seed = 0;
    ActivationQuantization activations;

    bool operator==(const ProjectCalibration&) const = default;
};

/// One carrying out of a project's plan.
struct ProjectRun {
    std::string name; ///< of its folder below NAME.rankscope/runs
    std::string program;
    std::string backend;
    std::int64_t threads = 0;
    double seconds = 0.0;
    std::string plan_hash; ///< of the plan that it carried out

    bool operator==(const ProjectRun&) const = default;
};

/// NAME.rankscope.json beside the folder NAME.rankscope (ux.md §10): everything that names a result. The same project
/// on the same backend gives the same bytes for any number of threads.
struct Project {
    std::filesystem::path checkpoint; ///< absolute in memory, as ProjectCalibration::text
    std::uint64_t checkpoint_bytes = 0;
    std::string architecture;
    std::optional<ProjectCalibration> calibration;
    bool propagate = false; ///< of its runs, with the calibration's text
    Plan plan;              ///< with checkpoint hash, calibration and seed
    std::string budget;     ///< what the plan was fitted to, as typed; for people
    std::vector<ProjectRun> runs;
    std::int64_t schema = 1; ///< a later one than this program's is read where that works, and never written

    bool operator==(const Project&) const = default;

    /// A project of that checkpoint. With a calibration, `text` must be what it was made of. Errors: BadInput.
    static Result<Project> make(const Model& model, const Plan& plan, const CalibrationStore* calibration,
                                const std::filesystem::path& text, std::uint64_t calibration_seed);
    /// Errors: Io; BadInput naming the key that is wrong.
    static Result<Project> read(const std::filesystem::path& file);
    /// Errors: Io, NoSpace; BadInput when the file exists and `replace` is false, or the schema is a later one.
    Status write(const std::filesystem::path& file, bool replace) const;

    /// Opens the checkpoint. Errors: BadInput when it moved, or is another one than the plan's.
    Result<std::shared_ptr<const Model>> model() const;
    /// Whether the calibration's text is there and still the same. Errors: Io, BadInput.
    Status check_text() const;
    std::string plan_hash() const;

    /// NAME.rankscope beside NAME.rankscope.json. Errors: Usage for a file of another name.
    static Result<std::filesystem::path> data_folder(const std::filesystem::path& file);
};

} // namespace rankscope
