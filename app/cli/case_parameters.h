// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method_info.h"

namespace rankscope::cli {

/// A method's parameters from the `parameters` object of a case file. Cases name what this build does in one
/// way only
/// ("rht": false, "codebook": "uniform"): these are accepted with that value and refused with another; where
/// a case is silent about refinements it means none. Errors: Usage (naming the parameter).
Result<std::map<std::string, ParameterValue, std::less<>>> case_parameters(const MethodInfo& method,
                                                                           const Json& parameters);

} // namespace rankscope::cli
