// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/plan/layer_plan.h"
#include "core/run/detail/run_index.h"

#include <filesystem>
#include <optional>
#include <set>
#include <string>

namespace rankscope {

/// What run.json says: where a run comes from.
struct RunManifest {
    std::filesystem::path checkpoint;
    std::string checkpoint_hash;
    std::string calibration_id; ///< empty: none
    std::optional<std::uint64_t> rotation_seed = {}; ///< of a rotated model; for whoever reads run.json
    std::string propagation = {}; ///< Propagation::id; empty: layers saw the original model's activations

    Json to_json() const;
    static Result<RunManifest> read(const std::filesystem::path& folder);
};

/// An exclusive lock on a run folder, held as long as the object lives; the system drops it when the process
/// dies.
class FolderLock {
public:
    /// Errors: BadInput when another process holds it.
    static Result<FolderLock> take(const std::filesystem::path& folder);
    FolderLock(FolderLock&& other) noexcept;
    FolderLock& operator=(FolderLock&& other) noexcept;
    ~FolderLock();

private:
    explicit FolderLock(int descriptor) : descriptor_(descriptor) {}
    int descriptor_ = -1;
};

/// A run folder opened for computing: locked, with its index and the layers that are finished already.
struct RunFolder {
    FolderLock lock;
    RunIndex index;
    std::set<std::string, std::less<>> finished;

    /// Makes the folder, whole at once; an existing run gives way only with `replace`, anything else never.
    static Result<RunFolder> create(const std::filesystem::path& folder, const RunManifest& manifest,
                                    const Plan& plan, bool replace);
    /// Opens an unfinished run to go on with it; removes what a killed run left half-written. Errors:
    /// BadInput when it was made from another checkpoint, calibration, plan or propagated text.
    static Result<RunFolder> resume(const std::filesystem::path& folder, const RunManifest& manifest,
                                    const Plan& plan);
};

inline constexpr char k_manifest_name[] = "run.json";
inline constexpr char k_plan_name[] = "plan.json";
inline constexpr char k_index_name[] = "index.sqlite";
inline constexpr char k_layers_name[] = "layers";

} // namespace rankscope
