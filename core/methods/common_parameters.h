// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/uniform_grid.h"
#include "core/methods/method_info.h"
#include "core/quantize/quantized_factors.h"
#include "core/quantize/quantized_matrix.h"

#include <initializer_list>

namespace rankscope {

// Parameters that several methods share, declared once so that they read the same everywhere (methods-joint
// §8.1).

/// bits, group, symmetric, sym_rule, clip_search: the grid of Q.
std::vector<ParameterInfo> grid_parameters(int default_bits);
/// The grid that these five and, where there is one, `codebook` describe. clip_search `auto` narrows ranges
/// at 2 bits and below only.
UniformGrid grid_of(const Parameters& parameters);

/// codebook: which scalar grid Q lies on (uniform, nf, mxint).
ParameterInfo scalar_codebook_parameter();
/// codebook with the lattice too, and rht: what Q is made of, and in which basis.
std::vector<ParameterInfo> codebook_parameters();
/// Name of a quantized matrix's codebook, as the parameter spells it.
std::string codebook_name(Codebook codebook, GridLevels levels);
Codebook codebook_of(const Parameters& parameters);
/// Whether the layer is rotated: with `auto` where Q lies on the lattice, which has one scale for all
/// weights.
bool rotates(const Parameters& parameters);
/// Usage error for bits that the codebook does not have. MethodInfo::check of all methods with a codebook.
Status check_codebook(const Parameters& parameters);

ParameterInfo rank_parameter();
/// factor_bits, factor_scale, lplr_iterations: how L and R are stored.
std::vector<ParameterInfo> factor_parameters();
FactorOptions factors_of(const Parameters& parameters);
/// activation_bits and clip: how the layer's input is rounded.
std::vector<ParameterInfo> activation_parameters(double default_clip);
ParameterInfo damp_parameter();
ParameterInfo act_order_parameter();
ParameterInfo tune_passes_parameter();
ParameterInfo iterations_parameter();
ParameterInfo early_stop_parameter();

ParameterInfo flag_parameter(std::string name, std::string title, bool fallback, std::string help);
ParameterInfo choice_parameter(std::string name, std::string title, std::vector<std::string> choices,
                               std::string help);

std::vector<ParameterInfo> operator+(std::vector<ParameterInfo> left,
                                     const std::vector<ParameterInfo>& right);

} // namespace rankscope
