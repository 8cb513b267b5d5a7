// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/tensor/matrix.h"

#include <vector>

namespace rankscope::detail {

/// theta^(−2i / turned) for the pairs of the `turned` (even) features of a head, changed by the scaling that
/// config.json asks for. Known kinds: default, linear, llama3. Errors: BadInput naming the key.
Result<std::vector<double>> rope_frequencies(Index turned, double theta, const Json& scaling);

} // namespace rankscope::detail
