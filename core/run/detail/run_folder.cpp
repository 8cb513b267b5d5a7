// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/run/detail/run_folder.h"

#include "core/base/atomic_file.h"
#include "core/run/detail/layer_file.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace rankscope {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view k_format = "rankscope.run";
constexpr std::int64_t k_version = 1;
constexpr char k_lock_name[] = ".lock";

/// What differs between the stored plan and the one given, for a person; empty when they are equal.
std::string plan_difference(const Plan& stored, const Plan& given)
{
    if (stored.seed != given.seed)
        return fmt::format("its seed is {}, not {}", stored.seed, given.seed);
    for (const LayerPlan& row : given.rows) {
        const LayerPlan* old = stored.find(row.layer);
        if (!old || !(*old == row))
            return "the row of " + row.layer + " differs";
    }
    return stored == given ? std::string() : "the plans differ";
}

Status check_same_origin(const fs::path& folder, const RunManifest& manifest, const Plan& plan)
{
    constexpr char k_remedy[] = "Give what the run was started with, or start a new one with --force";
    auto stored = RunManifest::read(folder);
    if (!stored)
        return stored.error();
    if (stored->checkpoint_hash != manifest.checkpoint_hash)
        return bad_input("the run was made from another checkpoint: " + stored->checkpoint.string(),
                         folder.string(), k_remedy);
    if (stored->calibration_id != manifest.calibration_id)
        return bad_input("the run was made with another calibration", folder.string(), k_remedy);
    if (stored->propagation != manifest.propagation)
        return bad_input(stored->propagation.empty()
                             ? "the run was made without --propagate"
                             : "the run was made with --propagate and " + stored->propagation,
                         folder.string(), k_remedy);
    auto stored_plan = Plan::read(folder / k_plan_name);
    if (!stored_plan)
        return stored_plan.error();
    if (const std::string difference = plan_difference(*stored_plan, plan); !difference.empty())
        return bad_input("the run was made with another plan: " + difference, folder.string(), k_remedy);
    return {};
}

} // namespace

Json RunManifest::to_json() const
{
    Json checkpoint_json;
    checkpoint_json.set("path", checkpoint.string());
    checkpoint_json.set("hash", checkpoint_hash);
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("program", RANKSCOPE_VERSION);
    json.set("checkpoint", std::move(checkpoint_json));
    json.set("calibration_id", calibration_id);
    if (rotation_seed)
        json.set("rotation", "seed " + std::to_string(*rotation_seed));
    if (!propagation.empty())
        json.set("propagation", propagation);
    return json;
}

Result<RunManifest> RunManifest::read(const fs::path& folder)
{
    const fs::path file = folder / k_manifest_name;
    auto json = Json::read(file);
    if (!json)
        return json.error();
    if ((*json)["format"].string() != k_format)
        return bad_input("this is no run", folder.string(), "Make one with rankscope-cli compress");
    if ((*json)["version"].integer() != k_version)
        return bad_input(fmt::format("version {} of the run format is not known, only {}",
                                     (*json)["version"].dump(), k_version),
                         folder.string(), "Use the version of the program that made the run");
    return RunManifest{(*json)["checkpoint"]["path"].string(), (*json)["checkpoint"]["hash"].string(),
                       (*json)["calibration_id"].string(), {}, (*json)["propagation"].string()};
}

FolderLock::FolderLock(FolderLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept
{
    std::swap(descriptor_, other.descriptor_);
    return *this;
}

FolderLock::~FolderLock()
{
    if (descriptor_ >= 0)
        ::close(descriptor_);
}

Result<FolderLock> FolderLock::take(const fs::path& folder)
{
    const fs::path file = folder / k_lock_name;
    const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0)
        return errno_error("lock the run", folder.string());
    FolderLock lock(descriptor);
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return bad_input("another process is computing this run", folder.string(),
                             "Wait until it is finished, or choose another folder");
        return errno_error("lock the run", folder.string());
    }
    return lock;
}

Result<RunFolder> RunFolder::create(const fs::path& folder, const RunManifest& manifest, const Plan& plan,
                                    bool replace)
{
    std::error_code problem;
    std::optional<FolderLock> old_lock;
    if (replace && fs::exists(folder, problem)
        && !(fs::is_directory(folder, problem) && fs::is_empty(folder, problem))) {
        if (!Run::is_run(folder))
            return bad_input("this exists and is no run, so it is not replaced", folder.string(),
                             "Choose another folder, or remove it yourself");
        auto taken = FolderLock::take(folder);
        if (!taken)
            return taken.error();
        old_lock.emplace(std::move(*taken));
    }
    auto aside = AtomicFolder::create(folder, replace);
    if (!aside)
        return aside.error();
    const fs::path part = aside->part();
    if (!fs::create_directory(part / k_layers_name, problem)) {
        errno = problem.value();
        return errno_error("create the folder", folder.string());
    }
    auto lock = FolderLock::take(part);
    if (!lock)
        return lock.error();
    if (auto written = plan.write(part / k_plan_name, false); !written)
        return written.error();
    if (auto made = RunIndex::create(part / k_index_name); !made)
        return made.error();
    if (auto written = write_text_file(part / k_manifest_name, manifest.to_json().dump(2) + "\n", false);
        !written)
        return written.error();
    if (auto committed = aside->commit(); !committed)
        return committed.error();
    auto index = RunIndex::open(folder / k_index_name, true);
    if (!index)
        return index.error();
    return RunFolder{std::move(*lock), std::move(*index), {}};
}

Result<RunFolder> RunFolder::resume(const fs::path& folder, const RunManifest& manifest, const Plan& plan)
{
    auto lock = FolderLock::take(folder);
    if (!lock)
        return lock.error();
    if (auto same = check_same_origin(folder, manifest, plan); !same)
        return same.error();
    auto index = RunIndex::open(folder / k_index_name, true);
    if (!index)
        return index.error();
    remove_unfinished_files(folder / k_layers_name);
    RunFolder run{std::move(*lock), std::move(*index), {}};
    auto rows = run.index.rows();
    if (!rows)
        return rows.error();
    for (const LayerResult& row : *rows) {
        // A row is written after its file; one whose file was damaged or removed since is computed again.
        if (read_layer_file(layer_file_path(folder, row.layer))) {
            run.finished.insert(row.layer);
        } else if (auto removed = run.index.remove(row.layer); !removed) {
            return removed.error();
        }
    }
    return run;
}

} // namespace rankscope
