// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/model/model.h"

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// One question. The choices are without the space that stands between context and choice.
struct ChoiceItem {
    std::vector<std::string> contexts; ///< one for all choices, or one per choice (winogrande)
    std::vector<std::string> choices;  ///< one alone is scored by greedy match (lambada)
    std::size_t gold = 0;
    bool normalized = false; ///< the task's own figure is the one per character
};

struct ChoiceTask {
    std::string name; ///< of the file, without .jsonl
    std::string file_hash;
    std::vector<ChoiceItem> items;
};

/// Reads a JSONL file, a question a line: {"context": "…" or "contexts": […], "choices": […], "gold": 0,
/// "norm": false}. Errors: Io; BadInput naming file, line and what was expected.
Result<ChoiceTask> read_choice_task(const std::filesystem::path& file);

/// What a model thinks of one choice.
struct ChoiceScore {
    double log_likelihood = 0.0; ///< Σ ln p of the choice's tokens after the context
    bool greedy = false;         ///< every token of it was the likeliest one
};

/// Which choice wins, the first of equals: by the sum, per character of the choice's text, and per byte
/// (UTF-8).
struct ChoiceWinners {
    std::size_t by_sum = 0;
    std::size_t by_character = 0;
    std::size_t by_byte = 0;
};
ChoiceWinners choice_winners(std::span<const ChoiceScore> scores, std::span<const std::string> choices);

/// A share of n questions with its standard error √(p·(1 − p)/n): differences below two of them are noise.
struct Accuracy {
    double value = 0.0;
    double standard_error = 0.0;
};

struct ChoiceResult {
    std::string task;
    std::string file_hash;
    std::size_t items = 0;
    Accuracy accuracy;         ///< by the sum; of items with one choice: greedy matches
    Accuracy per_character;    ///< "acc_norm"
    Accuracy per_byte;         ///< "acc_bytes"
    bool normalized = false;   ///< the task's own figure is per_character
    std::size_t truncated = 0; ///< questions that lost the beginning of their context
    double seconds = 0.0;
    std::vector<std::vector<ChoiceScore>> scores; ///< of every item, in the file's order
};

struct ChoiceOptions {
    std::uint64_t memory_budget_bytes = 0; ///< 0 = no limit; beyond it hidden states go to a scratch file
};

/// Scores every choice by the rules of lm-evaluation-harness (methods-learned §7.2): tokens of context + " "
/// + choice, less as many as the context alone has; too long ones lose their beginning. Choices that need the
/// same forward pass share it. Errors: BadInput (no tokenizer, logits that are not finite), NoSpace,
/// NoDevice, Cancelled.
Result<ChoiceResult> multiple_choice(std::shared_ptr<const Model> model, const WeightSource& weights,
                                     const ChoiceTask& task, const ChoiceOptions& options, Backend& backend,
                                     Monitor& monitor);

} // namespace rankscope
