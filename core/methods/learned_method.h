// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/learned_linear.h"
#include "core/methods/method.h"
#include "core/methods/reconstruction.h"

namespace rankscope {

// What LRQ and FlexRound do alike: parameters, and one layer against its own moments.

/// The grid, objective, steps, learning_rate, batch, and learned_rank where `kind` has one.
std::vector<ParameterInfo> learned_parameters(LearnedKind kind);
/// Refuses what objective=layer would ignore. MethodInfo::check of both.
Status check_learned(const Parameters& parameters);
/// Of methods that may round by LRQ or FlexRound before they correct: learned_rank, steps and learning_rate.
std::vector<ParameterInfo> descent_parameters();
ReconstructionOptions reconstruction_options(const Parameters& parameters, std::uint64_t seed);

/// A weight on the grid of the parameters, ready to be trained.
LearnedLinear learned_linear(const Buffer& weight, const std::string& name, const Parameters& parameters,
                             LearnedKind kind, std::uint64_t seed, Backend& backend, Monitor& monitor);

/// objective=layer: ‖(W − Ŵ)·X‖² from the problem's moments. Errors: Usage with objective=block, which Run
/// serves.
Result<Decomposition> reconstruct_from_moments(const LayerProblem& problem, const MethodInfo& info,
                                               const Parameters& parameters, LearnedKind kind,
                                               Backend& backend, Monitor& monitor);

/// The weight as learned from the moments, objective=layer, with the parameters of descent_parameters().
/// `moments` checked. Throws Cancelled.
LearnedLinear learned_from_moments(const LayerProblem& problem, const Parameters& parameters,
                                   LearnedKind kind, Backend& backend, Monitor& monitor);

/// Q of a trained linear as the layer's decomposition.
Decomposition decomposition_of(QuantizedMatrix quantized, const Matrix& weight);

} // namespace rankscope
