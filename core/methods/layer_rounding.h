// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"
#include "core/quantize/rounding.h"

namespace rankscope {

// What methods that round against input moments do alike: the damped problem, one rounding, and handing it
// over.

/// The problem as an optimiser sees it (methods-joint §2.1): H symmetric and damped, columns of dead channels
/// zero.
struct DampedLayer {
    Buffer weight;
    MatrixD hessian;
};
DampedLayer damped_layer(const LayerProblem& problem, double damp, Backend& backend, Monitor& monitor);

/// A weight on its grid.
struct RoundedLayer {
    GridBuffers grid;
    RoundedBuffers rounded;
};

/// Nearest rounding; needs no moments.
RoundedLayer round_to_nearest(const Buffer& weight, const UniformGrid& grid, Backend& backend,
                              Monitor& monitor);

/// Rounding with feedback (LDLQ = GPTQ) and coordinate descent afterwards.
struct FeedbackOptions {
    double damp = 0.01;
    bool act_order = true;
    int tune_passes = 2;
};
Result<RoundedLayer> round_against_moments(const LayerProblem& problem, const UniformGrid& grid,
                                           const FeedbackOptions& options, Backend& backend,
                                           Monitor& monitor);

/// Mean grid step / RMS(W) (methods-joint §1.6); 0 for a zero weight.
double quantization_scale(const GridBuffers& grid, double weight_rms, Backend& backend);
double root_mean_square(const Buffer& weight, Backend& backend);

/// Q into a decomposition of `problem`, with its quantization scale.
Decomposition decomposition_of(const LayerProblem& problem, const RoundedLayer& layer, Backend& backend);

/// The decomposition itself, unless arithmetic left the range of float32: then an error, so that no NaN goes
/// further.
Result<Decomposition> finite_or_error(Decomposition decomposition, const LayerProblem& problem);

} // namespace rankscope
