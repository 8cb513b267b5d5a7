// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/model/model.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

struct ActivationSimulation; // simulated_pass.h

/// How a text becomes windows; other protocols give other numbers, so it is always named with the figure.
enum class PerplexityProtocol : std::uint8_t {
    Gptq, ///< text tokenised once with the model's BOS in front, ⌊N/T⌋ chunks of T, per chunk T − 1 targets;
          ///< exp of the mean of chunk means (methods-learned §7.1)
    Windows, ///< each window is BOS + T − 1 text tokens (T without a BOS); exp of the mean over all targets
             ///< (formats.md §8): what the reference perplexities use
};
std::string_view id(PerplexityProtocol protocol); ///< "gptq", "windows"
Result<PerplexityProtocol> perplexity_protocol(std::string_view id);

struct PerplexityOptions {
    PerplexityProtocol protocol = PerplexityProtocol::Gptq;
    Index length = 0;                      ///< T; 0 = min(2048, the model's context)
    Index stride = 0;                      ///< 0 = T; smaller: overlapping windows, only new targets count
    Index max_tokens = 0;                  ///< of the text, without what the tokenizer adds; 0 = all
    std::uint64_t memory_budget_bytes = 0; ///< 0 = no limit; beyond it hidden states go to a scratch file
    /// Rounding of activations in what is evaluated; an original beside it is computed without. Null: none.
    std::shared_ptr<const ActivationSimulation> simulation{};
    /// Not empty: finished windows are kept in this file, and those that it holds are taken from it; it goes
    /// when all are done. `state_key` names the weights: a file of others is refused.
    std::filesystem::path state = {};
    std::string state_key = {};
};

struct PerplexityResult {
    PerplexityProtocol protocol = PerplexityProtocol::Gptq;
    Index length = 0;
    Index stride = 0; ///< text tokens from one window to the next
    Index windows = 0;
    std::uint64_t targets = 0;
    double nll_sum = 0.0; ///< −Σ ln p over the targets
    double perplexity = 0.0;
    double standard_error = 0.0; ///< of the perplexity, from the spread of window means; 0 with one window
    std::uint64_t words = 0;     ///< stretches without white space in the text that the windows cover
    double seconds = 0.0;
    std::string text_file; ///< file name only
    std::string text_hash;

    /// exp(nll_sum / words): 1.2 to 1.6 times the perplexity, never to be compared with one. 0 without words.
    double word_perplexity() const;
};

/// Losses of one window, for the figures below.
struct WindowLoss {
    double nll_sum = 0.0;
    Index targets = 0;
};
/// The figures of a result from its windows: nll_sum, targets, perplexity and its standard error. Windows of
/// equal numbers of targets give exp of the mean of their means, as the GPTQ rule asks; overlapping ones
/// count every target once.
void summarize(std::span<const WindowLoss> losses, PerplexityResult& result);

/// Streams the text through the model block by block: one block's weights are in memory at a time, and of the
/// logits a bounded number of rows. Errors: BadInput (text shorter than one window, bad UTF-8, logits that
/// are not finite), Usage (length, stride), NoSpace, NoDevice, Cancelled.
Result<PerplexityResult> perplexity(std::shared_ptr<const Model> model, const WeightSource& weights,
                                    const std::filesystem::path& text, const PerplexityOptions& options,
                                    Backend& backend, Monitor& monitor);

} // namespace rankscope
