// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/evaluate/detail/text_pass.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace rankscope::detail {

/// What is known of a window when it is done. The figures beside `after` are those of a comparison.
struct WindowRecord {
    Index targets = 0;
    double after = 0.0;  ///< −Σ ln p over the targets, of the evaluated model
    double before = 0.0; ///< of its original
    double kl = 0.0;     ///< Σ KL
    std::uint64_t same_top = 0;
    std::vector<float> divergences; ///< KL of every target
};

/// Measures some windows of a text; one record each.
using ChunkMeasurement =
    std::function<Result<std::vector<WindowRecord>>(const ScoredText& chunk, Monitor& monitor)>;

/// The records of all windows. With options.state they are measured in stretches of some 16,000 tokens and
/// kept in that file after each; a file that is there already is gone on from, and it is removed at the end.
/// The figures are those of an uninterrupted measurement bit by bit. `kind` tells a comparison from a
/// perplexity. Errors: those of `measure`; BadInput (the file belongs to another evaluation, or is damaged),
/// Io, NoSpace.
Result<std::vector<WindowRecord>> measure_windows(const ScoredText& text, const PerplexityOptions& options,
                                                  std::string_view kind, Monitor& monitor,
                                                  const ChunkMeasurement& measure);

/// What a cancelled measurement leaves behind, for at_job_border.
std::string what_remains(const PerplexityOptions& options);

} // namespace rankscope::detail
