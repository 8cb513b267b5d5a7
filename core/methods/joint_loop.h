// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/linalg/low_rank_solver.h"
#include "core/methods/layer_rounding.h"

namespace rankscope {

/// How Q and L·R take turns (methods-joint §4.1).
struct JointOptions {
    QuantizerOptions quantizer;
    bool rotate = false;   ///< in the rotated basis (methods-joint §3.1)
    bool downdate = false; ///< Q against the H that L cannot repair (§4.3)
    double damp = 0.01;    ///< of that H
    FactorOptions factors;
    Index rank = 0;
    LowRankMethod solver = LowRankMethod::Subspace;
    int iterations = 15;         ///< 0: no refinement, one rounding of what the start leaves
    bool low_rank_first = false; ///< L·R before Q in every iteration: the reference script's order
    bool early_stop = true;      ///< end when three iterations did not lower the best error by 0.1 %
    int tune_passes = 2;         ///< coordinate descent on the Q that is returned
};
/// From the parameters that joint_parameters() declares.
JointOptions joint_options(const Parameters& parameters);
/// The grid, codebook, rht, rank, factors, solver, damp, hessian_downdate, iterations, early_stop, act_order
/// and tune_passes.
std::vector<ParameterInfo> joint_parameters();

/// L₀ (m × r₀) and R₀ (r₀ × n) before the first step, in the basis of the weight; empty buffers for the zero
/// start.
struct JointStart {
    Buffer left;
    Buffer right;
};

/// Alternates Q ← LDLQ(W − L·R) on a freshly fitted grid and L·R ← the minimiser for W − Q (exact with
/// factors of 16 bits), both in the metric of the damped H, in the rotated basis if the options say so;
/// returns the best iterate of all half-steps after which both had been updated. The trace holds a "start"
/// entry for a start that is not zero, and one entry a half-step.
///
/// No half-step multiplies an m × n matrix by H: the sweep measures its own loss tr(E·H·Eᵀ), and with
/// T = W − Q = E + L·R all other norms follow from products of rank r (tr(T·H·Tᵀ) = loss + 2⟨E·H·Rᵀ, L⟩ +
/// ‖L·R·H^½‖²). Only with a downdated H, or a device that does not measure the loss, one such product is due.
/// Errors: BadInput. Throws Cancelled, BackendFailure.
Result<Decomposition> alternate(const LayerProblem& problem, const DampedLayer& layer,
                                const JointOptions& options, const JointStart& start, Backend& backend,
                                Monitor& monitor);

} // namespace rankscope
