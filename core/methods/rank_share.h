// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/methods/method_info.h"
#include "core/tensor/matrix.h"

namespace rankscope {

/// A rank may be written as a share of a matrix's smaller side, "10%" (methods-joint §6.3): then this is
/// round(0.1 · min(out, in)); any other value comes back as it is. Errors: Usage (no number before the sign,
/// not between 0 and 100).
Result<ParameterValue> resolved_rank(const ParameterValue& value, Index out, Index in);

} // namespace rankscope
