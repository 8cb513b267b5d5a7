// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <filesystem>

namespace rankscope::test {

/// Writes a checkpoint that computes what the sample computes, with 256 inputs to every linear layer instead
/// of 64 and 172: the residual stream goes into a random subspace of 256 dimensions, gains of norms into the
/// weights behind them, and heads and MLP are filled up with zeros. K types need that width.
Status write_wide_model(const std::filesystem::path& folder);

} // namespace rankscope::test
