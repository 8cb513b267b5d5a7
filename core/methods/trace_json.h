// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/methods/method.h"

#include <vector>

namespace rankscope {

/// The half-steps of a method as a list of objects, without matrices: in reports and in a run's index.
Json trace_to_json(const std::vector<IterationReport>& trace);

} // namespace rankscope
