// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/activation_statistics.h"
#include "core/calibration/moments.h"
#include "core/model/model.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace rankscope {

struct CalibrationOptions {
    Index samples = 128; ///< sequences, taken from the start of the text; fewer if the text is shorter
    Index length = 0;    ///< tokens per sequence; 0 = min(2048, the model's context)
    ActivationQuantization activations;    ///< active: also the covariances of quantized activations
    std::uint64_t memory_budget_bytes = 0; ///< 0 = no limit
    bool replace = false;                  ///< --force
};

/// What a calibration was made from; names it in plans and runs.
struct CalibrationSource {
    std::string checkpoint_hash; ///< CheckpointReader::header_hash
    std::string text_file;       ///< file name only
    std::string text_hash;       ///< SHA-256 of the text
    std::uint64_t tokens = 0;
    Index samples = 0;
    Index length = 0;
    ActivationQuantization activations; ///< active: covariances of quantized activations are there
};

/// A folder with calibration.json and one safetensors file a block: for each input group `GROUP.hessian`
/// (F64, in × in), with quantised activations `GROUP.sigma_xy` and `GROUP.sigma_yy` (F64, in × in),
/// `GROUP.mean_abs`, `GROUP.max_abs` (F64, in), `GROUP.statistics` (F64, the rows of
/// ActivationStatistics::to_rows), `GROUP.histogram` (I64) and `GROUP.counts` (I64: tokens, zeros). Readable
/// with the Python package. Const and thread-safe once open.
class CalibrationStore {
public:
    /// Errors: BadInput (no calibration, other version), Io.
    static Result<std::shared_ptr<const CalibrationStore>> open(const std::filesystem::path& folder);

    const std::filesystem::path& path() const { return folder_; }
    const CalibrationSource& source() const { return source_; }
    std::string id() const; ///< hash of the source: names the calibration
    const std::vector<std::string>& groups() const { return groups_; }
    Result<Moments> moments(std::string_view group) const;
    /// With sigma_xy and sigma_yy. Errors: BadInput when the calibration has none, saying how to get them.
    Result<Moments> moments_with_activations(std::string_view group) const;
    Result<ActivationStatistics> statistics(std::string_view group) const;
    /// BadInput when this was made from another checkpoint.
    Status check(const Model& model) const;

private:
    CalibrationStore() = default;
    Result<const CheckpointReader*> reader(std::string_view group) const;

    std::filesystem::path folder_;
    CalibrationSource source_;
    std::vector<std::string> groups_;
    std::vector<int> blocks_;                                        // of each group
    mutable std::vector<std::unique_ptr<CheckpointReader>> readers_; // by block, opened at once in open()
};

/// Cuts a text file into sequences and streams them through the model, one block's weights in memory at a
/// time, collecting moments and statistics of every linear's input; writes the folder `out` atomically.
/// Errors: BadInput (text shorter than one sequence, invalid UTF-8 with its byte offset, non-finite
/// activations with block, group and token; `out` exists), Usage (length, samples), Io, NoSpace (budget or
/// drive), NoDevice, Cancelled.
Status calibrate(std::shared_ptr<const Model> model, const std::filesystem::path& text,
                 const std::filesystem::path& out, const CalibrationOptions& options, Backend& backend,
                 Monitor& monitor);

} // namespace rankscope
