// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/streaming_pass.h"
#include "core/methods/block_reconstruction.h"
#include "core/methods/learned_linear.h"
#include "core/model/differentiable_block.h"
#include "core/model/model.h"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>

namespace rankscope::test {

/// The first block of a checkpoint, its streams, and its linears before the first step.
struct LearningCase {
    std::shared_ptr<const Model> model;
    std::optional<DifferentiableBlock> block;
    BlockWeights weights;
    std::map<LinearRole, std::string> names;
    Index length = 0;
    Matrix inputs, targets;
};

/// `sequences` of at most `length` tokens through that block; its buffers are the backend's. Errors: the
/// checkpoint's.
Result<LearningCase> learning_case(const std::filesystem::path& checkpoint, Index sequences, Index length,
                                   Backend& backend);

/// A copy of these hidden states.
HiddenStates states_of(const Matrix& rows);

/// The block's linears, learned on `grid` from what they are.
std::map<LinearRole, LearnedLinear> learned_linears(const LearningCase& given, const UniformGrid& grid,
                                                    LearnedKind kind, Backend& backend);

} // namespace rankscope::test
