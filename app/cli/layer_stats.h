// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/table.h"
#include "core/base/json.h"
#include "core/calibration/calibration_store.h"
#include "core/model/model.h"
#include "core/plan/layer_spectrum.h"
#include "core/plan/weight_statistics.h"

#include <optional>
#include <string>
#include <vector>

namespace rankscope::cli {

/// The figures of one layer; those of activations and spectrum where they were asked for.
struct LayerStats {
    const LinearLayer* layer = nullptr;
    WeightStatistics weight;
    double top_energy = 0.0; ///< share of the weighted energy that the 8 strongest channels carry
    double gain_db = 0.0;    ///< ‖W·H^½‖ / ‖E·H^½‖ of nearest rounding to the grid asked for
    ChannelProfile profile;
    struct Input {
        ActivationStatistics all;
        std::optional<ActivationStatistics> first, later; ///< tokens; not in calibrations of an older version
        double off_diagonal = 0.0;                        ///< share of ‖H‖²
        MatrixD correlation;                              ///< pooled |H| / ‖H‖
    };
    std::optional<Input> input;
    std::optional<LayerSpectrum> spectrum;
    VectorD leading; ///< σ of W, the largest ones only: --spectrum-rank
};

/// What a decoder block adds up to.
struct BlockStats {
    int block = 0;
    BlockOutput all;
    ActivationStatistics first, later;
};

struct StatsRequest {
    UniformGrid grid;
    bool spectrum = false;
    Index spectrum_rank = 0; ///< > 0: so many leading singular values, estimated
    std::uint64_t seed = 0;
};

/// Errors: those of the weight and of the calibration.
Result<LayerStats> layer_stats(const LinearLayer& layer, const Model& model,
                               const CalibrationStore* calibration, const StatsRequest& request,
                               Backend& backend, Monitor& monitor);
Result<BlockStats> block_stats(int block, const CalibrationStore& calibration);

Json layer_json(const LayerStats& stats);
Json block_json(const BlockStats& stats);
/// Channels of the residual stream's width that reach 6 in at least 6 % of the tokens, in at least a quarter
/// of the inputs of that width: LLM.int8's strict outliers (Dettmers et al. 2022).
std::vector<Index> persistent_outliers(const std::vector<LayerStats>& all, Index hidden);

using NumberText = std::string (*)(double);
/// Weights and their spectra, a row for each layer.
Table layer_table(const std::vector<LayerStats>& all, NumberText number);
/// What the layers read, a row for each input: q, k and v share one.
Table input_table(const std::vector<LayerStats>& all, NumberText number);
Table block_table(const std::vector<BlockStats>& all, NumberText number);

/// Tables of one layer: channels/, histogram/, correlation/ and spectrum/ below `folder`, named by the layer.
Status write_layer_csv(const std::filesystem::path& folder, const LayerStats& stats);

} // namespace rankscope::cli
