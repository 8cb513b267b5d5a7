// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "core/evaluate/perplexity.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace rankscope::detail {

/// A text cut into windows by a protocol, and what of it counts.
struct ScoredText {
    TokenWindows windows;
    Index first_window = 0;  ///< number of windows' first one, where they are a stretch of the text's
    Index stride = 0;        ///< text tokens from one window to the next
    std::uint64_t words = 0; ///< stretches without white space in the text that the windows cover
    std::string file;        ///< file name only
    std::string hash;
};
/// Errors: those of tokenize_file and window_length; Usage (stride, max_tokens); BadInput (too short).
Result<ScoredText> score_text(const Model& model, const std::filesystem::path& text,
                              const PerplexityOptions& options);

/// The figures that belong to the text and not to the model; the others are summarize()'s.
PerplexityResult result_of(const ScoredText& text, const PerplexityOptions& options);

/// The input of the final norm for every token of the windows. `passes` of them will be held at a time.
/// Errors: those of stream_blocks and make_hidden_states.
Result<HiddenStates> final_states(const Model& model, const WeightSource& weights,
                                  const TokenWindows& windows, std::uint64_t memory_budget_bytes, int passes,
                                  Backend& backend, Monitor& monitor);

/// The same for several texts, each with windows of its own length: every block's weights are loaded once.
/// Progress counts the batches of all texts together.
Result<std::vector<HiddenStates>> final_states(const Model& model, const WeightSource& weights,
                                               std::span<const TokenWindows* const> texts,
                                               std::uint64_t memory_budget_bytes, Backend& backend,
                                               Monitor& monitor);

/// The same for what is evaluated: with rounded activations where the options say so.
Result<HiddenStates> evaluated_states(const Model& model, const WeightSource& weights,
                                      const TokenWindows& windows, const PerplexityOptions& options,
                                      int passes, Backend& backend, Monitor& monitor);

/// Rows of logits that are held at a time.
Index logit_rows(const Model& model);

/// A stretch of rows whose next tokens are scored, all in one window.
struct ScoredRows {
    Index window = 0; ///< among those that are scored, whatever first_window
    Index first = 0;  ///< row of the hidden states
    Index count = 0;
    std::vector<Index> targets; ///< the token after each row
};
/// Visits every scored row once, at most `rows` at a time, in order.
Status visit_scored_rows(const ScoredText& text, Index rows,
                         const std::function<Status(const ScoredRows& rows)>& visit);

Error logits_not_finite(Index window);

/// Says which of several passes reports come from, and stands for its share of the whole.
class StageMonitor : public Monitor {
public:
    StageMonitor(Monitor& monitor, std::string prefix) : monitor_(monitor), prefix_(std::move(prefix)) {}
    void report(std::uint64_t done, std::uint64_t total, std::string_view what) override
    {
        monitor_.report(done, total, prefix_ + std::string(what));
    }
    void warn(std::string_view sentence) override { monitor_.warn(sentence); }
    bool cancelled() const override { return monitor_.cancelled(); }

private:
    Monitor& monitor_;
    std::string prefix_;
};

} // namespace rankscope::detail
