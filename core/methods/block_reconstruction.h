// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/streaming_pass.h"
#include "core/methods/reconstruction.h"
#include "core/model/differentiable_block.h"

namespace rankscope {

/// Both streams of a block (methods-learned §1.3), in whole sequences of `length` tokens.
struct BlockStreams {
    HiddenStates* inputs = nullptr;  ///< what the compressed blocks before this one give
    HiddenStates* targets = nullptr; ///< this block in full precision on the full-precision stream
    Index length = 0;
    Index held_out = 0; ///< sequences at the end that are not trained on

    Index sequences() const { return inputs->tokens() / length; }
};

/// One block to be reconstructed: those of its linears that are learned, and the weights of the others.
struct BlockProblem {
    const DifferentiableBlock* block = nullptr;
    std::map<LinearRole, LearnedLinear*> learned;
    BlockWeights fixed;
    BlockQuantizers quantizers;
    BlockStreams streams;
};

/// Sequences that are held out of `total`: an eighth, none where that is less than one.
Index held_out_sequences(Index total);

/// Rounds each token over all its features, asymmetrically (methods-learned §1.4); `backend` must outlive it.
std::function<Buffer(LinearRole, const Buffer&)> per_token_quantizer(int bits, Backend& backend);
/// The smallest and the largest value that each input of a block's linears takes.
using ActivationRanges = std::map<LinearRole, std::pair<double, double>>;
/// One range for all values, from smallest to largest, widened to hold 0; it may have no width.
std::function<Buffer(LinearRole, const Buffer&)> static_quantizer(int bits, const ActivationRanges& ranges,
                                                                  Backend& backend);

/// Sends the first `sequences` of the states, of `length` tokens each, through the block and leaves its
/// output in their place. Throws Cancelled.
void advance_states(const DifferentiableBlock& block, const BlockWeights& weights,
                    const BlockQuantizers& quantizers, HiddenStates& states, Index length, Index sequences,
                    Backend& backend, Monitor& monitor);
/// The ranges that the same pass meets, with keys and values rounded; the states stay as they are.
ActivationRanges activation_ranges(const DifferentiableBlock& block, const BlockWeights& weights,
                                   int key_value_bits, HiddenStates& states, Index length, Index sequences,
                                   Backend& backend, Monitor& monitor);

/// Loss of the first batch; takes its gradient to the parameters of all learned linears.
double descend_block(const BlockProblem& problem, const ReconstructionOptions& options, Backend& backend);
/// Trains all linears of the block together on ‖block(x̃) − y‖² / (sequences · features). Throws Cancelled.
ReconstructionReport reconstruct_block(const BlockProblem& problem, const ReconstructionOptions& options,
                                       Backend& backend, Monitor& monitor);

/// What a reconstruction of one block will take, from shapes and a short measurement of products.
struct ReconstructionEstimate {
    double operations = 0.0; ///< floating-point operations
    double seconds = 0.0;
    std::uint64_t bytes = 0;
};
struct ReconstructionSize {
    Index weights = 0; ///< of the block's linears
    Index widest = 0;  ///< features of its widest activation
    Index hidden = 0;
    Index attention = 0;      ///< heads · head size
    Index factor_numbers = 0; ///< Σ rank · (out + in) of the learned linears; 0 with FlexRound
    std::uint64_t learned_bytes = 0;
    Index length = 0;
    Index sequences = 0;
};
ReconstructionEstimate estimate_reconstruction(const ReconstructionSize& size,
                                               const ReconstructionOptions& options, Backend& backend);

} // namespace rankscope
