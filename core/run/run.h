// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/calibration_store.h"
#include "core/methods/method.h"
#include "core/model/model.h"
#include "core/plan/layer_plan.h"
#include "core/run/run_control.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace rankscope {

/// One finished layer's row in the index.
struct LayerResult {
    std::string layer;
    std::string method;
    Json parameters;
    double seconds = 0.0;
    double bits_per_weight = 0.0;
    double quantization_scale = 0.0;
    DecompositionQuality quality;
    std::string backend; ///< which computed it (a device failure falls back to "cpu")
    std::vector<IterationReport> trace; ///< without matrices
};

enum class LayerState : std::uint8_t { Waiting, Running, Done, Failed };

/// Progress of a run, called from worker threads; must be cheap.
struct RunEvents {
    std::function<void(const std::string& layer, LayerState state, const std::string& message)> layer_changed;
    std::function<void(const std::string& layer, double fraction, const std::string& stage)> layer_progress;
};

struct RunOptions {
    bool resume = false;
    bool replace = false;                  ///< --force: an existing run folder is replaced
    std::uint64_t memory_budget_bytes = 0; ///< 0 = no limit; layer jobs are admitted while their estimates fit
    std::filesystem::path text; ///< what rows with objective=block learn from, and what `propagate` sends
    Index samples = 128;        ///< sequences of it, fewer if it is shorter
    Index length = 0;           ///< tokens per sequence; 0 = min(2048, the model's context)
    /// Block after block: each sees the text as the compressed blocks before it hand it on, and its layers come near to
    /// what the original model's gave (moments of both streams; those of the calibration are not used).
    bool propagate = false;
    std::shared_ptr<RunControl> control = {}; ///< null: nobody asks for anything
};

/// A folder: plan.json, run.json (checkpoint path and hash, calibration, versions), index.sqlite (one row per finished
/// layer), layers/NAME.safetensors (codes, scales, zeros, left, right). A finished layer is whole on disk before its
/// row is written; a run killed anywhere resumes.
class Run {
public:
    /// Executes the plan. Layers run in parallel on core's pool. Cancelling keeps finished layers. A failed layer does
    /// not stop the others; the error returned names how many failed and the first reason.
    static Status execute(std::shared_ptr<const Model> model, const Plan& plan,
                          std::shared_ptr<const CalibrationStore> calibration, const std::filesystem::path& folder,
                          const RunOptions& options, Backend& backend, Monitor& monitor, const RunEvents& events = {});

    /// Opens a run folder for reading. Errors: BadInput (no run, other version).
    static Result<std::shared_ptr<const Run>> open(const std::filesystem::path& folder);
    /// Whether a folder looks like a run (to tell it from a checkpoint).
    static bool is_run(const std::filesystem::path& folder);

    const std::filesystem::path& path() const { return folder_; }
    const Plan& plan() const { return plan_; }
    const std::filesystem::path& checkpoint_path() const { return checkpoint_path_; }
    std::vector<LayerResult> results() const; ///< finished layers in plan order
    bool complete() const;                    ///< every included layer is done
    Result<Decomposition> decomposition(std::string_view layer) const;
    /// Opens the checkpoint that the run was made from and checks its hash.
    Result<std::shared_ptr<const Model>> model() const;

private:
    Run() = default;
    std::filesystem::path folder_;
    std::filesystem::path checkpoint_path_;
    Plan plan_;
    std::vector<LayerResult> results_;
};

/// The model's weights with the run's layers as Q + L·R (not densified) in their place.
std::unique_ptr<WeightSource> run_weights(std::shared_ptr<const Model> model, std::shared_ptr<const Run> run);

} // namespace rankscope
