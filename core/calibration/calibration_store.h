// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/activation_statistics.h"
#include "core/calibration/moments.h"
#include "core/model/model.h"

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace rankscope {

struct CalibrationOptions {
    Index samples = 128; ///< sequences, taken from the start of the text; fewer if the text is shorter
    Index length = 0;    ///< tokens per sequence; 0 = min(2048, the model's context)
    ActivationQuantization activations;    ///< active: also the covariances of quantized activations
    std::vector<double> thresholds;        ///< of |x|, counted besides 6
    std::uint64_t seed = 0;                ///< chooses the tokens whose values are kept
    std::uint64_t memory_budget_bytes = 0; ///< 0 = no limit
    bool replace = false;                  ///< --force
    bool resume = false; ///< go on with an interrupted pass of the same settings, if there is one
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

/// Which of a text's tokens a statistic is about: attention sinks make the first one of a window another
/// world.
enum class TokenKind : std::uint8_t { All, First, Later };

/// Rows of an input as they were, for surfaces and percentiles: kept in 16 bits, clamped to ±65504.
struct SampledTokens {
    std::vector<Index> tokens; ///< rising; window · length + position
    Matrix values;             ///< tokens × channels
};

/// A large entry of a block's output and where it stands.
struct StrongEntry {
    double value = 0.0;
    Index window = 0;
    Index position = 0;
    Index channel = 0;
};

/// What a block adds up to, behind its last sum.
struct BlockOutput {
    ActivationStatistics statistics;
    std::vector<StrongEntry> strongest; ///< falling |value|

    /// The massive activations among the strongest (Sun et al. 2024, arXiv 2402.17762): |x| > 100 and > 1000
    /// · median |x| of this state.
    std::vector<StrongEntry> massive() const;
};

/// A folder with calibration.json and one safetensors file a block (docs/formats.md). Readable with the
/// Python package. Const and thread-safe once open.
class CalibrationStore {
public:
    /// Errors: BadInput (no calibration, other version), Io.
    static Result<std::shared_ptr<const CalibrationStore>> open(const std::filesystem::path& folder);

    const std::filesystem::path& path() const { return folder_; }
    const CalibrationSource& source() const { return source_; }
    std::string id() const; ///< hash of the source: names the calibration
    const std::vector<std::string>& groups() const { return groups_; }
    const std::vector<double>& thresholds() const { return thresholds_; }
    Result<Moments> moments(std::string_view group) const;
    /// With sigma_xy and sigma_yy. Errors: BadInput when the calibration has none, saying how to get them.
    Result<Moments> moments_with_activations(std::string_view group) const;
    /// Errors: BadInput for First and Later when the calibration is of an older version.
    Result<ActivationStatistics> statistics(std::string_view group, TokenKind tokens = TokenKind::All) const;
    Result<SampledTokens> sample(std::string_view group) const;
    Result<BlockOutput> block_output(int block, TokenKind tokens = TokenKind::All) const;

    /// BadInput when this was made from another checkpoint: other headers, other files; or, when a file was
    /// written since, other bytes in the embedding.
    Status check(const Model& model) const;
    /// BadInput when the tensors that the layer's block is loaded from, other layers' weights aside, hold
    /// other bytes than when this was made. Costs nothing while the files have the size and time that they
    /// had; else each tensor is hashed once.
    Status check_layer(const Model& model, const LinearLayer& layer) const;

private:
    CalibrationStore() = default;
    Status read_index(const Json& json, const std::filesystem::path& file);
    Status open_block(std::size_t block, const Json& entry, const std::filesystem::path& file);
    Result<const CheckpointReader*> reader(std::string_view group) const;
    Result<ActivationStatistics> read_statistics(const CheckpointReader& reader,
                                                 const std::string& name) const;
    bool unchanged_files(const Model& model) const;
    Status check_tensors(const Model& model, const std::vector<std::string>& names) const;

    std::filesystem::path folder_;
    int version_ = 0;
    CalibrationSource source_;
    std::vector<double> thresholds_;
    std::vector<std::pair<std::uint64_t, std::int64_t>> stamps_; ///< size and time of the checkpoint's files
    std::map<std::string, std::string, std::less<>> hashes_;     ///< of the checkpoint's tensors
    std::vector<std::string> groups_;
    std::vector<int> blocks_;                                        // of each group
    mutable std::vector<std::unique_ptr<CheckpointReader>> readers_; // by block, opened at once in open()
    mutable std::mutex checked_mutex_;
    mutable std::map<std::string, bool, std::less<>>
        checked_; ///< tensors whose bytes were compared: the same?
};

/// The moments of a layer whose weight `model` is to give: refuses bytes that have changed since.
Result<Moments> layer_moments(const CalibrationStore& store, const Model& model, const LinearLayer& layer);

/// Cuts a text file into sequences and streams them through the model, one block's weights in memory at a
/// time, collecting moments and statistics of every linear's input; writes the folder `out` atomically. An
/// interrupted pass stays beside it as `out`.unfinished and goes on from its last finished block with
/// options.resume. Errors: BadInput (text shorter than one sequence, invalid UTF-8 with its byte offset,
/// non-finite activations with block, group and token; `out` exists), Usage (length, samples), Io, NoSpace
/// (budget or drive), NoDevice, Cancelled.
Status calibrate(std::shared_ptr<const Model> model, const std::filesystem::path& text,
                 const std::filesystem::path& out, const CalibrationOptions& options, Backend& backend,
                 Monitor& monitor);

} // namespace rankscope
