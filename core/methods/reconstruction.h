// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/methods/learned_linear.h"

#include <functional>
#include <span>
#include <vector>

namespace rankscope {

/// How learned roundings are trained (methods-learned §1.3).
struct ReconstructionOptions {
    Index steps = 5000;
    double learning_rate = 5e-4; ///< falls to 0 along half a cosine
    Index batch = 2;             ///< sequences of a step; whole blocks only
    Index checks = 10;           ///< times that the whole loss is measured beside the start
    std::uint64_t seed = 0;      ///< of the order of sequences
};

/// The loss after `step` steps; `held_out` over the sequences that were not trained on, negative where there
/// are none.
struct LossPoint {
    Index step = 0;
    double training = 0.0;
    double held_out = -1.0;
};

/// What a training did. The parameters of the least whole training loss are kept, the start among them: never
/// worse than nearest rounding there.
struct ReconstructionReport {
    std::vector<LossPoint> curve;
    std::vector<double> step_losses; ///< before each step of the last attempt, of that step's batch
    Index best_step = 0;
    double learning_rate = 0.0; ///< with which it ended
    Index halvings = 0;         ///< times that the learning rate diverged and was halved
};

/// Learning rate of step t = 0 … steps − 1: ½·rate·(1 + cos(π·t/steps)).
double cosine_rate(double rate, Index step, Index steps);

/// What gradient descent on learned linears needs to know of a loss.
struct TrainingLoss {
    /// Loss of the batch of step t; takes the gradients of all linears to their parameters.
    std::function<double(Index step)> descend;
    /// Training and hold-out loss of everything with the present parameters.
    std::function<LossPoint()> measure;
};

/// Adam on all linears. A loss that is not finite, or far above the start's, means that the learning rate is
/// too large: the best parameters come back, the rate is halved, the steps start again, and the monitor is
/// told. After eight halvings the best that was seen is the result. Throws Cancelled.
ReconstructionReport train(std::span<LearnedLinear* const> linears, const TrainingLoss& loss,
                           const ReconstructionOptions& options, Backend& backend, Monitor& monitor);

/// Layer by layer (the fast mode): ‖W·X − Ŵ·X̃‖² / (out · tokens) from second moments alone.
struct LayerLoss {
    Buffer hessian;     ///< H̃ = X̃·X̃ᵀ / tokens, in × in
    Buffer drift;       ///< W·(X − X̃)·X̃ᵀ / tokens, out × in; empty where X̃ = X
    double floor = 0.0; ///< ‖W·(X − X̃)‖² / tokens
};
/// The loss with the present parameters; takes its gradient to them.
double descend_layer(LearnedLinear& linear, const LayerLoss& loss, Backend& backend);
ReconstructionReport reconstruct_layer(LearnedLinear& linear, const LayerLoss& loss,
                                       const ReconstructionOptions& options, Backend& backend,
                                       Monitor& monitor);

} // namespace rankscope
