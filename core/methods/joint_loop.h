// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/layer_rounding.h"

namespace rankscope {

/// How Q and L·R take turns (methods-joint §4.1).
struct JointOptions {
    UniformGrid grid;
    Index rank = 0;
    int iterations = 15;
    bool low_rank_first = false; ///< L·R before Q in every iteration: the reference script's order
    bool early_stop = true;      ///< end when three iterations did not lower the best error by 0.1 %
    bool act_order = true;
    int tune_passes = 2; ///< coordinate descent on the Q that is returned
};
/// From the parameters that joint_parameters() declares.
JointOptions joint_options(const Parameters& parameters);
/// The grid, rank, damp, iterations, early_stop, act_order and tune_passes.
std::vector<ParameterInfo> joint_parameters();

/// L₀ (m × r₀) and R₀ (r₀ × n) before the first step; empty buffers for the zero start.
struct JointStart {
    Buffer left;
    Buffer right;
};

/// Alternates Q ← LDLQ(W − L·R) on a freshly fitted grid and L·R ← the exact minimiser for W − Q, both in the
/// metric of the damped H; returns the best iterate of all half-steps after which both had been updated. The
/// trace holds a "start" entry for a start that is not zero, and one entry a half-step. Errors: BadInput.
/// Throws Cancelled, BackendFailure.
Result<Decomposition> alternate(const LayerProblem& problem, const DampedLayer& layer,
                                const JointOptions& options, const JointStart& start, Backend& backend,
                                Monitor& monitor);

} // namespace rankscope
