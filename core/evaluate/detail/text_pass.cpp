// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/evaluate/detail/text_pass.h"

#include "core/evaluate/simulated_pass.h"

#include <algorithm>
#include <map>

namespace rankscope::detail {
namespace {

/// Logits held at a time, in bytes.
constexpr Index k_logit_bytes = Index{64} << 20;

Result<TokenWindows> cut_windows(const TokenizedText& text, Index length, Index& stride,
                                 PerplexityProtocol protocol)
{
    const bool prefixed = protocol == PerplexityProtocol::Windows;
    const Index content = prefixed ? length - static_cast<Index>(text.prefix.size()) : length;
    if (stride < 0 || stride > length)
        return usage_error("the stride must be between 1 and the window's " + std::to_string(length)
                               + " tokens",
                           "--stride");
    stride = stride == 0 ? content : std::min(stride, content);
    return prefixed ? prefixed_windows(text, length, stride, 0) : continuous_windows(text, length, stride);
}

std::uint64_t count_words(std::string_view text)
{
    std::uint64_t words = 0;
    bool within = false;
    for (const char c : text) {
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        words += !space && !within ? 1 : 0;
        within = !space;
    }
    return words;
}

/// Position of the first token of a window that counts as a target.
Index first_target(const ScoredText& text, Index window)
{
    return text.first_window + window == 0 ? 1 : std::max<Index>(1, text.windows.length - text.stride);
}

/// What the heads need at a time beside the hidden states: a weight twice while it is loaded, and logits.
std::uint64_t head_bytes(const Model& model, Index length, int passes)
{
    const auto vocabulary = static_cast<std::uint64_t>(model.config().vocabulary);
    const auto rows = static_cast<std::uint64_t>(std::min(length, logit_rows(model)));
    const auto heads = static_cast<std::uint64_t>(passes);
    return (heads + 1) * vocabulary * static_cast<std::uint64_t>(model.config().hidden) * sizeof(float)
           + 2 * heads * rows * vocabulary * sizeof(float);
}

/// A block's linears, kept as long as they are the ones that are asked for.
class KeptBlock final : public WeightSource {
public:
    explicit KeptBlock(const WeightSource& weights) : weights_(weights) {}
    Result<LinearWeight> linear(const LinearLayer& layer, Backend& backend) const override
    {
        return weights_.linear(layer, backend);
    }
    Result<LinearWeight> prepared_linear(const LinearLayer& layer, Backend& backend) const override
    {
        if (layer.block != block_)
            kept_.clear();
        block_ = layer.block;
        if (const auto found = kept_.find(layer.name); found != kept_.end())
            return found->second;
        auto weight = weights_.prepared_linear(layer, backend);
        if (weight)
            kept_.emplace(layer.name, *weight);
        return weight;
    }

private:
    const WeightSource& weights_;
    mutable int block_ = -1;
    mutable std::map<std::string, LinearWeight> kept_;
};

/// Counts the reports of several passes as steps of one.
class StepMonitor final : public Monitor {
public:
    StepMonitor(Monitor& monitor, std::uint64_t total) : monitor_(monitor), total_(total) {}
    void report(std::uint64_t, std::uint64_t, std::string_view what) override
    {
        monitor_.report(done_++, total_, what);
    }
    void warn(std::string_view sentence) override { monitor_.warn(sentence); }
    bool cancelled() const override { return monitor_.cancelled(); }

private:
    Monitor& monitor_;
    std::uint64_t done_ = 0;
    std::uint64_t total_;
};

std::uint64_t batches_of(const TokenWindows& windows)
{
    const Index step = windows_per_batch(windows.length);
    return static_cast<std::uint64_t>((windows.count() + step - 1) / step);
}

} // namespace

Result<ScoredText> score_text(const Model& model, const std::filesystem::path& text,
                              const PerplexityOptions& options)
{
    auto tokens = tokenize_file(model, text);
    if (!tokens)
        return tokens.error();
    auto length = window_length(model, options.length);
    if (!length)
        return length.error();
    if (options.max_tokens < 0)
        return usage_error("the number of tokens cannot be negative", "--max-tokens");
    if (options.max_tokens > 0 && options.max_tokens < static_cast<Index>(tokens->tokens.size()))
        tokens->tokens.resize(static_cast<std::size_t>(options.max_tokens));
    ScoredText result;
    result.stride = options.stride;
    auto windows = cut_windows(*tokens, *length, result.stride, options.protocol);
    if (!windows)
        return windows.error();
    result.windows = std::move(*windows);
    result.file = std::move(tokens->file);
    result.hash = std::move(tokens->hash);
    const Index covered = (result.windows.count() - 1) * result.stride + result.windows.length;
    const auto taken = std::min<std::size_t>(static_cast<std::size_t>(covered), tokens->tokens.size());
    auto tokenizer = model.tokenizer();
    if (!tokenizer)
        return tokenizer.error();
    result.words = count_words((*tokenizer)->decode(std::span(tokens->tokens).first(taken)));
    return result;
}

PerplexityResult result_of(const ScoredText& text, const PerplexityOptions& options)
{
    PerplexityResult result;
    result.protocol = options.protocol;
    result.length = text.windows.length;
    result.stride = text.stride;
    result.words = text.words;
    result.text_file = text.file;
    result.text_hash = text.hash;
    return result;
}

Result<HiddenStates> final_states(const Model& model, const WeightSource& weights,
                                  const TokenWindows& windows, std::uint64_t memory_budget_bytes, int passes,
                                  Backend& backend, Monitor& monitor)
{
    const PassMemory memory = pass_memory(model, windows.count(), windows.length);
    const std::uint64_t fixed =
        std::max(memory.block_weights + memory.activations, head_bytes(model, windows.length, passes))
        + static_cast<std::uint64_t>(passes - 1) * memory.hidden;
    std::error_code ignored;
    auto states = make_hidden_states(static_cast<Index>(windows.tokens.size()), model.config().hidden, fixed,
                                     memory_budget_bytes, std::filesystem::temp_directory_path(ignored));
    if (!states)
        return states.error();
    if (auto done = stream_blocks(model, weights, windows, *states, {}, backend, monitor); !done)
        return done.error();
    return states;
}

Result<std::vector<HiddenStates>> final_states(const Model& model, const WeightSource& weights,
                                               std::span<const TokenWindows* const> texts,
                                               std::uint64_t memory_budget_bytes, Backend& backend,
                                               Monitor& monitor)
{
    const KeptBlock block_weights(weights);
    const auto blocks = static_cast<int>(model.config().blocks);
    std::uint64_t fixed = 0;
    std::uint64_t steps = 0;
    for (const TokenWindows* windows : texts) {
        const PassMemory memory = pass_memory(model, windows->count(), windows->length);
        fixed = std::max(
            {fixed, memory.block_weights + memory.activations, head_bytes(model, windows->length, 1)});
        steps += batches_of(*windows) * static_cast<std::uint64_t>(blocks + 1);
    }
    StepMonitor counted(monitor, steps);
    std::vector<HiddenStates> states;
    std::vector<StreamingPass> passes;
    std::error_code ignored;
    for (const TokenWindows* windows : texts) {
        auto made =
            make_hidden_states(static_cast<Index>(windows->tokens.size()), model.config().hidden, fixed,
                               memory_budget_bytes, std::filesystem::temp_directory_path(ignored));
        if (!made)
            return made.error();
        fixed += made->in_file()
                     ? 0
                     : windows->tokens.size() * static_cast<std::uint64_t>(made->width()) * sizeof(float);
        states.push_back(std::move(*made));
        passes.emplace_back(model, *windows, backend, counted);
        if (auto embedded = passes.back().embed(states.back()); !embedded)
            return embedded.error();
    }
    for (int block = 0; block < blocks; ++block) {
        for (std::size_t i = 0; i < passes.size(); ++i) {
            if (auto done = passes[i].run_block(block, {block_weights, states[i]}, {}); !done)
                return done.error();
        }
    }
    return states;
}

Result<HiddenStates> evaluated_states(const Model& model, const WeightSource& weights,
                                      const TokenWindows& windows, const PerplexityOptions& options,
                                      int passes, Backend& backend, Monitor& monitor)
{
    if (options.simulation)
        return simulated_states(model, weights, windows, *options.simulation, options.memory_budget_bytes,
                                backend, monitor);
    return final_states(model, weights, windows, options.memory_budget_bytes, passes, backend, monitor);
}

Index logit_rows(const Model& model)
{
    const Index vocabulary = std::max<Index>(1, model.config().vocabulary);
    return std::max<Index>(1, k_logit_bytes / (vocabulary * static_cast<Index>(sizeof(float))));
}

Status visit_scored_rows(const ScoredText& text, Index rows,
                         const std::function<Status(const ScoredRows& rows)>& visit)
{
    const TokenWindows& windows = text.windows;
    for (Index window = 0; window < windows.count(); ++window) {
        const Index end = (window + 1) * windows.length - 1; // the last token predicts nothing that is known
        for (Index first = window * windows.length + first_target(text, window) - 1; first < end;
             first += rows) {
            ScoredRows scored{window, first, std::min(rows, end - first), {}};
            for (Index row = first; row < first + scored.count; ++row)
                scored.targets.push_back(windows.tokens[static_cast<std::size_t>(row + 1)]);
            if (auto done = visit(scored); !done)
                return done;
        }
    }
    return {};
}

Error logits_not_finite(Index window)
{
    return bad_input("the logits are not finite in window " + std::to_string(window), {},
                     "The weights overflow on this text: check the checkpoint or the run's layers");
}

} // namespace rankscope::detail
