// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/model/architecture.h"

namespace rankscope::detail {

/// How the `turned` (even) features of a head are turned: theta^(−2i / turned), changed by the scaling that
/// config.json asks for. Known kinds: default, linear, dynamic, llama3, yarn, longrope (su). Errors: BadInput
/// naming the key.
Result<Rotation> rotation_of(const ModelConfig& config, Index turned, double theta, const Json& scaling);

} // namespace rankscope::detail
