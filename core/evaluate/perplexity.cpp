// SPDX-License-Identifier: GPL-3.0-or-later
//
// Perplexity of a text in windows (methods-learned §7.1, formats.md §8). With a stride below the window's
// content, every window after the first scores only the tokens that no window before it has scored, each with
// as much context as the window gives.
#include "core/evaluate/perplexity.h"

#include "core/calibration/streaming_pass.h"
#include "core/calibration/token_windows.h"
#include "core/compute/job_border.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace rankscope {
namespace {

/// Logits held at a time, in bytes.
constexpr Index k_logit_bytes = Index{64} << 20;

struct Cut {
    TokenWindows windows;
    Index stride = 0;
};

Result<Cut> cut_windows(TokenizedText text, Index length, const PerplexityOptions& options)
{
    if (options.max_tokens < 0)
        return usage_error("the number of tokens cannot be negative", "--max-tokens");
    if (options.max_tokens > 0 && options.max_tokens < static_cast<Index>(text.tokens.size()))
        text.tokens.resize(static_cast<std::size_t>(options.max_tokens));
    const bool prefixed = options.protocol == PerplexityProtocol::Windows;
    const Index content = prefixed ? length - static_cast<Index>(text.prefix.size()) : length;
    if (options.stride < 0 || options.stride > length)
        return usage_error("the stride must be between 1 and the window's " + std::to_string(length)
                               + " tokens",
                           "--stride");
    const Index stride = options.stride == 0 ? content : std::min(options.stride, content);
    auto windows =
        prefixed ? prefixed_windows(text, length, stride, 0) : continuous_windows(text, length, stride);
    if (!windows)
        return windows.error();
    return Cut{std::move(*windows), stride};
}

/// Position of the first token of a window that counts as a target.
Index first_target(const TokenWindows& windows, Index window, Index stride)
{
    return window == 0 ? 1 : std::max<Index>(1, windows.length - stride);
}

/// Rows [first, first + count) of the final hidden states against the tokens that follow them.
Result<double> loss_of_rows(const OutputHead& head, HiddenStates& states, const TokenWindows& windows,
                            Index first, Index count, Backend& backend)
{
    std::vector<Index> targets(static_cast<std::size_t>(count));
    for (Index row = 0; row < count; ++row)
        targets[static_cast<std::size_t>(row)] = windows.tokens[static_cast<std::size_t>(first + row + 1)];
    const Buffer hidden = backend.upload(states.rows(first, count));
    const double loss = backend.cross_entropy(head.logits(hidden, backend), targets).sum();
    if (!std::isfinite(loss))
        return bad_input("the logits are not finite in window " + std::to_string(first / windows.length), {},
                         "The weights overflow on this text: check the checkpoint or the run's layers");
    return loss;
}

Result<std::vector<WindowLoss>> window_losses(const Model& model, const Cut& cut, HiddenStates& states,
                                              Backend& backend, Monitor& monitor)
{
    auto head = OutputHead::load(model, backend);
    if (!head)
        return head.error();
    const TokenWindows& windows = cut.windows;
    const Index vocabulary = std::max<Index>(1, model.config().vocabulary);
    const Index rows = std::max<Index>(1, k_logit_bytes / (vocabulary * static_cast<Index>(sizeof(float))));
    std::vector<WindowLoss> losses;
    for (Index window = 0; window < windows.count(); ++window) {
        monitor.report(static_cast<std::uint64_t>(window), static_cast<std::uint64_t>(windows.count()),
                       "logits");
        const Index target = first_target(windows, window, cut.stride);
        WindowLoss loss{0.0, windows.length - target};
        const Index end = (window + 1) * windows.length - 1; // the last token predicts nothing that is known
        for (Index first = window * windows.length + target - 1; first < end; first += rows) {
            monitor.throw_if_cancelled();
            auto part = loss_of_rows(*head, states, windows, first, std::min(rows, end - first), backend);
            if (!part)
                return part.error();
            loss.nll_sum += *part;
        }
        states.release(window * windows.length, windows.length);
        losses.push_back(loss);
    }
    return losses;
}

/// What the head needs at a time beside the hidden states: its weight twice while it is loaded, and the
/// logits.
std::uint64_t head_bytes(const Model& model)
{
    const auto vocabulary = static_cast<std::uint64_t>(model.config().vocabulary);
    return 2 * vocabulary * static_cast<std::uint64_t>(model.config().hidden) * sizeof(float)
           + 2 * static_cast<std::uint64_t>(k_logit_bytes);
}

} // namespace

std::string_view id(PerplexityProtocol protocol)
{
    return protocol == PerplexityProtocol::Gptq ? "gptq" : "windows";
}

Result<PerplexityProtocol> perplexity_protocol(std::string_view id)
{
    if (id == "gptq")
        return PerplexityProtocol::Gptq;
    if (id == "windows")
        return PerplexityProtocol::Windows;
    return usage_error("there is no perplexity protocol \"" + std::string(id) + "\"", "--protocol",
                       "Choose gptq or windows");
}

void summarize(std::span<const WindowLoss> losses, PerplexityResult& result)
{
    result.windows = static_cast<Index>(losses.size());
    result.nll_sum = 0.0;
    result.targets = 0;
    for (const WindowLoss& loss : losses) {
        result.nll_sum += loss.nll_sum;
        result.targets += static_cast<std::uint64_t>(loss.targets);
    }
    if (result.targets == 0)
        return;
    const double mean = result.nll_sum / static_cast<double>(result.targets);
    result.perplexity = std::exp(mean);
    result.standard_error = 0.0;
    if (losses.size() < 2)
        return;
    double spread = 0.0;
    for (const WindowLoss& loss : losses) {
        const double deviation = loss.nll_sum / static_cast<double>(loss.targets) - mean;
        spread += deviation * deviation;
    }
    const auto count = static_cast<double>(losses.size());
    result.standard_error = result.perplexity * std::sqrt(spread / (count - 1.0) / count);
}

namespace {

Result<PerplexityResult> measure_text(const Model& model, const WeightSource& weights,
                                      const std::filesystem::path& text, const PerplexityOptions& options,
                                      Backend& backend, Monitor& monitor)
{
    const auto start = std::chrono::steady_clock::now();
    monitor.report(0, 0, "reading the text");
    auto tokens = tokenize_file(model, text);
    if (!tokens)
        return tokens.error();
    auto length = window_length(model, options.length);
    if (!length)
        return length.error();
    PerplexityResult result;
    result.protocol = options.protocol;
    result.length = *length;
    result.text_file = tokens->file;
    result.text_hash = tokens->hash;
    auto cut = cut_windows(std::move(*tokens), *length, options);
    if (!cut)
        return cut.error();
    result.stride = cut->stride;

    const PassMemory memory = pass_memory(model, cut->windows.count(), *length);
    const std::uint64_t fixed = std::max(memory.block_weights + memory.activations, head_bytes(model));
    std::error_code ignored;
    auto states =
        make_hidden_states(static_cast<Index>(cut->windows.tokens.size()), model.config().hidden, fixed,
                           options.memory_budget_bytes, std::filesystem::temp_directory_path(ignored));
    if (!states)
        return states.error();
    if (auto done = stream_blocks(model, weights, cut->windows, *states, {}, backend, monitor); !done)
        return done.error();
    auto losses = window_losses(model, *cut, *states, backend, monitor);
    if (!losses)
        return losses.error();
    summarize(*losses, result);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

} // namespace

Result<PerplexityResult> perplexity(std::shared_ptr<const Model> model, const WeightSource& weights,
                                    const std::filesystem::path& text, const PerplexityOptions& options,
                                    Backend& backend, Monitor& monitor)
{
    return at_job_border("nothing was measured",
                         [&] { return measure_text(*model, weights, text, options, backend, monitor); });
}

} // namespace rankscope
