// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <filesystem>
#include <string_view>
#include <vector>

namespace rankscope {

/// Keeps what `evaluate` found of a run beside the run, so that reports can show it: RUN/evaluations/, one
/// file for each text, protocol and length; a later measurement takes the place of an earlier one. `document`
/// has at least "protocol", "length", "text_hash" and "perplexity". Errors: Io, NoSpace, BadInput (a key is
/// missing).
Status record_evaluation(const std::filesystem::path& run_folder, const Json& document);

/// All of them, by file name. A folder without any is no error; a damaged file is. Errors: Io, BadInput.
Result<std::vector<Json>> recorded_evaluations(const std::filesystem::path& run_folder);

} // namespace rankscope
