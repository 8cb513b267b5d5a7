// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/run/detail/run_folder.h"
#include "core/run/run.h"

namespace rankscope {

/// Whether the row's rounding is learned from the output of its whole block, on text.
bool learns_from_blocks(const LayerPlan& row);

/// What such rows need beside what every run has. Errors: Usage (no text, a block with experts).
Status check_block_rows(const Model& model, const Plan& plan, const RunOptions& options);

/// Learns those rows block by block, first to last: inputs come from the compressed blocks before, targets
/// from the full-precision stream (methods-learned §1.3). A block's layers are written together with its loss
/// curve (curves/BLOCK.json); what `target` holds already is taken as it is. Throws Cancelled,
/// BackendFailure.
Status run_blocks(const Model& model, const Plan& plan, const CalibrationStore* calibration,
                  const std::filesystem::path& folder, const RunOptions& options, RunFolder& target,
                  Backend& backend, Monitor& monitor, const RunEvents& events);

} // namespace rankscope
