// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/block_reconstruction.h"

#include <filesystem>
#include <vector>

namespace rankscope {

/// What a run keeps of a block whose rounding was learned (curves/BLOCK.json).
struct BlockCurve {
    int block = 0;
    std::vector<LossPoint> points; ///< not empty; the start is nearest rounding
    Index best_step = 0;
    double learning_rate = 0.0; ///< with which it ended
    Index halvings = 0;
    ActivationRanges ranges; ///< static ones that it was learned with; empty: none

    const LossPoint& best() const; ///< the least training loss of them
};

Status write_block_curve(const std::filesystem::path& run, const BlockCurve& curve);
/// Those of all blocks that were learned, in order; none where the run has none. Errors: BadInput, Io.
Result<std::vector<BlockCurve>> read_block_curves(const std::filesystem::path& run);

} // namespace rankscope
