// SPDX-License-Identifier: GPL-3.0-or-later
//
// Perplexity of two models on the same tokens, and how far the second one's distributions are from the first
// one's: mean and 99 % KL, same likeliest token (methods-learned §7.1). Both passes end in hidden states;
// only then are the heads applied, to the same few rows of both at a time.
#include "core/evaluate/text_comparison.h"

#include "core/compute/job_border.h"
#include "core/evaluate/detail/evaluation_state.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace rankscope {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start)
{
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One of the two: its final hidden states and its head.
struct Side {
    HiddenStates states;
    OutputHead head;

    Buffer logits(const detail::ScoredRows& rows, Backend& backend)
    {
        const Buffer hidden = backend.upload(states.rows(rows.first, rows.count));
        states.release(rows.first, rows.count);
        return head.logits(hidden, backend);
    }
};

Result<Side> run_side(const EvaluatedModel& subject, const TokenWindows& windows,
                      const PerplexityOptions& options, Backend& backend, Monitor& monitor)
{
    auto states =
        detail::evaluated_states(*subject.model, *subject.weights, windows, options, 2, backend, monitor);
    if (!states)
        return states.error();
    auto head = OutputHead::load(*subject.model, backend);
    if (!head)
        return head.error();
    return Side{std::move(*states), std::move(*head)};
}

/// What both heads say of some rows of the record's window.
Status add_rows(const detail::ScoredRows& rows, const Buffer& reference, const Buffer& logits,
                detail::WindowRecord& record, Backend& backend)
{
    const double before = backend.cross_entropy(reference, rows.targets).sum();
    const double after = backend.cross_entropy(logits, rows.targets).sum();
    if (!std::isfinite(before) || !std::isfinite(after))
        return detail::logits_not_finite(rows.window);
    record.before += before;
    record.after += after;
    record.targets += rows.count;
    const VectorD divergence = backend.kl_divergence(reference, logits);
    record.kl += divergence.sum();
    for (const double kl : divergence)
        record.divergences.push_back(static_cast<float>(kl));
    const std::vector<Index> top = backend.row_argmax(reference);
    const std::vector<Index> other = backend.row_argmax(logits);
    for (std::size_t i = 0; i < top.size(); ++i)
        record.same_top += top[i] == other[i] ? 1 : 0;
    return {};
}

Divergence summarize(const std::vector<detail::WindowRecord>& records)
{
    Divergence result;
    std::vector<float> divergences;
    std::uint64_t same_top = 0;
    for (const detail::WindowRecord& record : records) {
        divergences.insert(divergences.end(), record.divergences.begin(), record.divergences.end());
        same_top += record.same_top;
    }
    if (divergences.empty())
        return result;
    const auto tokens = static_cast<double>(divergences.size());
    for (const detail::WindowRecord& record : records)
        result.mean_kl += record.kl / tokens;
    result.same_top = static_cast<double>(same_top) / tokens;
    const auto rank = static_cast<std::ptrdiff_t>(std::ceil(0.99 * tokens)) - 1;
    std::nth_element(divergences.begin(), divergences.begin() + rank, divergences.end());
    result.kl_99 = static_cast<double>(divergences[static_cast<std::size_t>(rank)]);
    const auto windows = static_cast<double>(records.size());
    if (records.size() < 2)
        return result;
    double spread = 0.0;
    for (const detail::WindowRecord& record : records) {
        const double mean = record.kl / static_cast<double>(record.targets);
        spread += (mean - result.mean_kl) * (mean - result.mean_kl);
    }
    result.standard_error = std::sqrt(spread / (windows - 1.0) / windows);
    return result;
}

Status same_vocabulary(const EvaluatedModel& original, const EvaluatedModel& compressed)
{
    const Index before = original.model->config().vocabulary;
    const Index after = compressed.model->config().vocabulary;
    if (before == after)
        return {};
    return bad_input("the two models have different vocabularies: " + std::to_string(before) + " and "
                         + std::to_string(after) + " tokens",
                     compressed.model->path().string(), "Compare a model with its own original");
}

/// What a pass works with.
struct PassTools {
    const PerplexityOptions& options;
    Backend& backend;
    Monitor& monitor;
};

/// Adds to the seconds of both.
Result<std::vector<detail::WindowRecord>> compare_windows(const EvaluatedModel& original,
                                                          const EvaluatedModel& compressed,
                                                          const detail::ScoredText& text,
                                                          const PassTools& tools, TextComparison& times)
{
    auto start = Clock::now();
    detail::StageMonitor first(tools.monitor, "original: ");
    PerplexityOptions unrounded = tools.options;
    unrounded.simulation = nullptr;
    auto before = run_side(original, text.windows, unrounded, tools.backend, first);
    if (!before)
        return before.error();
    times.original.seconds += seconds_since(start);
    start = Clock::now();
    detail::StageMonitor second(tools.monitor, "compressed: ");
    auto after = run_side(compressed, text.windows, tools.options, tools.backend, second);
    if (!after)
        return after.error();
    times.compressed.seconds += seconds_since(start);
    start = Clock::now();
    const auto windows = static_cast<std::size_t>(text.windows.count());
    std::vector<detail::WindowRecord> records(windows);
    auto done = detail::visit_scored_rows(
        text, detail::logit_rows(*original.model), [&](const detail::ScoredRows& rows) {
            tools.monitor.throw_if_cancelled();
            tools.monitor.report(static_cast<std::uint64_t>(rows.window), windows, "logits");
            return add_rows(rows, before->logits(rows, tools.backend), after->logits(rows, tools.backend),
                            records[static_cast<std::size_t>(rows.window)], tools.backend);
        });
    if (!done)
        return done.error();
    times.original.seconds += seconds_since(start) / 2.0; // the heads were applied to both at once
    times.compressed.seconds += seconds_since(start) / 2.0;
    return records;
}

Result<TextComparison> compare(const EvaluatedModel& original, const EvaluatedModel& compressed,
                               const std::filesystem::path& text, const PerplexityOptions& options,
                               Backend& backend, Monitor& monitor)
{
    if (auto fits = same_vocabulary(original, compressed); !fits)
        return fits.error();
    monitor.report(0, 0, "reading the text");
    auto scored = detail::score_text(*original.model, text, options);
    if (!scored)
        return scored.error();
    TextComparison result{detail::result_of(*scored, options), detail::result_of(*scored, options), {}};
    const auto measure = [&](const detail::ScoredText& chunk, Monitor& stage) {
        return compare_windows(original, compressed, chunk, {options, backend, stage}, result);
    };
    const auto records = detail::measure_windows(*scored, options, "comparison", monitor, measure);
    if (!records)
        return records.error();
    std::vector<WindowLoss> before;
    std::vector<WindowLoss> after;
    for (const detail::WindowRecord& record : *records) {
        before.push_back({record.before, record.targets});
        after.push_back({record.after, record.targets});
    }
    summarize(before, result.original);
    summarize(after, result.compressed);
    result.divergence = summarize(*records);
    return result;
}

} // namespace

Result<TextComparison> compare_on_text(const EvaluatedModel& original, const EvaluatedModel& compressed,
                                       const std::filesystem::path& text, const PerplexityOptions& options,
                                       Backend& backend, Monitor& monitor)
{
    return at_job_border(detail::what_remains(options),
                         [&] { return compare(original, compressed, text, options, backend, monitor); });
}

} // namespace rankscope
