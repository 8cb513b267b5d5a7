// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/calibration_store.h"
#include "core/model/model.h"

#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// What flows through a whole model, channel by channel: a row for each input group in the order of the
/// blocks.
struct ChannelMap {
    struct Row {
        std::string group; ///< name of its first layer
        int block = 0;
        LinearRole role =
            LinearRole::Other; ///< of that layer: q (attention's input), o, gate (the MLP's), down …
        VectorD max_abs;       ///< largest |x_j|
        VectorD rms;           ///< √(mean x_j²), the root of diag H
        double median_max_abs = 0.0;
        double median_rms = 0.0;
    };
    std::vector<Row> rows;
};

/// From the statistics of a calibration; groups without one are left out. Errors: BadInput, Io. Throws
/// Cancelled.
Result<ChannelMap> channel_map(const CalibrationStore& store, const Model& model, Monitor& monitor);

/// Channels whose value is above `factor` medians of its row in at least `share` of the rows, falling by how
/// often. All rows have the same number of channels; none without rows.
std::vector<Index> persistent_channels(std::span<const VectorD* const> rows, double factor, double share);

} // namespace rankscope
