// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/evaluate/multiple_choice.h"
#include "core/evaluate/text_comparison.h"
#include "core/run/run.h"

#include <string>

namespace rankscope::cli {

/// A run in a few figures.
struct RunSummary {
    std::string methods; ///< "odlri", or several joined by "+"
    std::size_t layers = 0;
    std::size_t included = 0;
    double bits_per_weight = 0.0; ///< over the weights of the finished layers
    std::uint64_t original_bytes = 0;
    std::uint64_t compressed_bytes = 0;
    double mean_activation_error = 0.0; ///< mean of the layers' relative activation errors
    double worst_activation_error = 0.0;
    double seconds = 0.0; ///< summed over layers
};
RunSummary summarize(const Run& run, const Model& model);

Json to_json(const RunSummary& summary);
Json to_json(const LayerResult& result);
Json to_json(const PerplexityResult& result);
Json to_json(const Divergence& divergence);
Json to_json(const ChoiceResult& result); ///< without the scores of each question
/// The layers of a run, a row each.
std::string layer_table(const std::vector<LayerResult>& results);
/// "4.49 ± 0.12 (gptq, 3 windows of 512)".
std::string describe(const PerplexityResult& result);

} // namespace rankscope::cli
