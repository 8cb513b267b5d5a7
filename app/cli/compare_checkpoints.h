// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/options.h"
#include "app/cli/session.h"

#include <filesystem>
#include <vector>

namespace rankscope::cli {

/// The weights of checkpoints against those of the first, the original, layer by layer; with `text` (may be
/// empty) also their perplexities. Errors: Usage (fewer than two), those of opening and reading.
Result<Output> compare_checkpoints(const std::vector<std::filesystem::path>& paths,
                                   const std::filesystem::path& text, Session& session);

} // namespace rankscope::cli
