// SPDX-License-Identifier: GPL-3.0-or-later
//
// Perplexity of a text in windows (methods-learned §7.1, formats.md §8). With a stride below the window's
// content, every window after the first scores only the tokens that no window before it has scored, each with
// as much context as the window gives.
#include "core/evaluate/perplexity.h"

#include "core/compute/job_border.h"
#include "core/evaluate/detail/evaluation_state.h"

#include <chrono>
#include <cmath>

namespace rankscope {
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

double PerplexityResult::word_perplexity() const
{
    return words == 0 ? 0.0 : std::exp(nll_sum / static_cast<double>(words));
}

namespace {

Result<std::vector<detail::WindowRecord>> window_losses(const Model& model, const detail::ScoredText& text,
                                                        HiddenStates& states, Backend& backend,
                                                        Monitor& monitor)
{
    auto head = OutputHead::load(model, backend);
    if (!head)
        return head.error();
    const auto windows = static_cast<std::size_t>(text.windows.count());
    std::vector<detail::WindowRecord> records(windows);
    auto done = detail::visit_scored_rows(
        text, detail::logit_rows(model), [&](const detail::ScoredRows& rows) -> Status {
            monitor.throw_if_cancelled();
            monitor.report(static_cast<std::uint64_t>(rows.window), windows, "logits");
            const Buffer hidden = backend.upload(states.rows(rows.first, rows.count));
            states.release(rows.first, rows.count);
            const double loss = backend.cross_entropy(head->logits(hidden, backend), rows.targets).sum();
            if (!std::isfinite(loss))
                return detail::logits_not_finite(text.first_window + rows.window);
            detail::WindowRecord& window = records[static_cast<std::size_t>(rows.window)];
            window.after += loss;
            window.targets += rows.count;
            return {};
        });
    if (!done)
        return done.error();
    return records;
}

Result<PerplexityResult> measure_text(const Model& model, const WeightSource& weights,
                                      const std::filesystem::path& text, const PerplexityOptions& options,
                                      Backend& backend, Monitor& monitor)
{
    const auto start = std::chrono::steady_clock::now();
    monitor.report(0, 0, "reading the text");
    auto scored = detail::score_text(model, text, options);
    if (!scored)
        return scored.error();
    const auto measure = [&](const detail::ScoredText& chunk,
                             Monitor& stage) -> Result<std::vector<detail::WindowRecord>> {
        auto states = detail::evaluated_states(model, weights, chunk.windows, options, 1, backend, stage);
        if (!states)
            return states.error();
        return window_losses(model, chunk, *states, backend, stage);
    };
    const auto records = detail::measure_windows(*scored, options, "perplexity", monitor, measure);
    if (!records)
        return records.error();
    std::vector<WindowLoss> losses;
    for (const detail::WindowRecord& record : *records)
        losses.push_back({record.after, record.targets});
    PerplexityResult result = detail::result_of(*scored, options);
    summarize(losses, result);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

} // namespace

Result<PerplexityResult> perplexity(std::shared_ptr<const Model> model, const WeightSource& weights,
                                    const std::filesystem::path& text, const PerplexityOptions& options,
                                    Backend& backend, Monitor& monitor)
{
    return at_job_border(detail::what_remains(options),
                         [&] { return measure_text(*model, weights, text, options, backend, monitor); });
}

} // namespace rankscope
