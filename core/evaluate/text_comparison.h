// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/evaluate/perplexity.h"

namespace rankscope {

/// A model with the weights that its forward pass takes: its own, a run's, or an export's.
struct EvaluatedModel {
    std::shared_ptr<const Model> model;
    const WeightSource* weights = nullptr;
};

/// How far a model's next-token distributions are from the original's, over all scored tokens.
struct Divergence {
    double mean_kl = 0.0;        ///< mean of KL(original ‖ compressed), in nats
    double standard_error = 0.0; ///< of it, from the spread of window means; 0 with one window
    double kl_99 = 0.0;          ///< 99 % of the tokens diverge no more than this
    double same_top = 0.0;       ///< share of tokens for which both think the same token likeliest
};

struct TextComparison {
    PerplexityResult original;
    PerplexityResult compressed;
    Divergence divergence;
};

/// Both models on the same tokens of one text (tokenized with the original's tokenizer), one after the other;
/// the logits are compared row by row and never held as a whole. Errors: those of perplexity(); BadInput when
/// the two have different vocabularies.
Result<TextComparison> compare_on_text(const EvaluatedModel& original, const EvaluatedModel& compressed,
                                       const std::filesystem::path& text, const PerplexityOptions& options,
                                       Backend& backend, Monitor& monitor);

} // namespace rankscope
