// SPDX-License-Identifier: GPL-3.0-or-later
//
// Perplexity of two models on the same tokens, and how far the second one's distributions are from the first
// one's: mean and 99 % KL, same likeliest token (methods-learned §7.1). Both passes end in hidden states;
// only then are the heads applied, to the same few rows of both at a time.
#include "core/evaluate/text_comparison.h"

#include "core/compute/job_border.h"
#include "core/evaluate/detail/text_pass.h"

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

/// What both heads say of the scored rows, as it comes.
struct Tally {
    std::vector<WindowLoss> original;
    std::vector<WindowLoss> compressed;
    std::vector<double> window_kl;  ///< sums
    std::vector<float> divergences; ///< of every token
    std::uint64_t same_top = 0;

    explicit Tally(std::size_t windows) : original(windows), compressed(windows), window_kl(windows) {}
};

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

Status add_rows(const detail::ScoredRows& rows, const Buffer& reference, const Buffer& logits, Tally& tally,
                Backend& backend)
{
    const double before = backend.cross_entropy(reference, rows.targets).sum();
    const double after = backend.cross_entropy(logits, rows.targets).sum();
    if (!std::isfinite(before) || !std::isfinite(after))
        return detail::logits_not_finite(rows.window);
    const auto window = static_cast<std::size_t>(rows.window);
    tally.original[window].nll_sum += before;
    tally.original[window].targets += rows.count;
    tally.compressed[window].nll_sum += after;
    tally.compressed[window].targets += rows.count;
    const VectorD divergence = backend.kl_divergence(reference, logits);
    tally.window_kl[window] += divergence.sum();
    for (const double kl : divergence)
        tally.divergences.push_back(static_cast<float>(kl));
    const std::vector<Index> top = backend.row_argmax(reference);
    const std::vector<Index> other = backend.row_argmax(logits);
    for (std::size_t i = 0; i < top.size(); ++i)
        tally.same_top += top[i] == other[i] ? 1 : 0;
    return {};
}

Divergence summarize(Tally& tally)
{
    Divergence result;
    const auto tokens = static_cast<double>(tally.divergences.size());
    if (tally.divergences.empty())
        return result;
    for (const double sum : tally.window_kl)
        result.mean_kl += sum / tokens;
    result.same_top = static_cast<double>(tally.same_top) / tokens;
    const auto rank = static_cast<std::ptrdiff_t>(std::ceil(0.99 * tokens)) - 1;
    std::nth_element(tally.divergences.begin(), tally.divergences.begin() + rank, tally.divergences.end());
    result.kl_99 = static_cast<double>(tally.divergences[static_cast<std::size_t>(rank)]);
    const auto windows = static_cast<double>(tally.window_kl.size());
    if (tally.window_kl.size() < 2)
        return result;
    double spread = 0.0;
    for (std::size_t i = 0; i < tally.window_kl.size(); ++i) {
        const double mean = tally.window_kl[i] / static_cast<double>(tally.original[i].targets);
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
    auto start = Clock::now();
    detail::StageMonitor first(monitor, "original: ");
    PerplexityOptions unrounded = options;
    unrounded.simulation = nullptr;
    auto before = run_side(original, scored->windows, unrounded, backend, first);
    if (!before)
        return before.error();
    result.original.seconds = seconds_since(start);
    start = Clock::now();
    detail::StageMonitor second(monitor, "compressed: ");
    auto after = run_side(compressed, scored->windows, options, backend, second);
    if (!after)
        return after.error();
    result.compressed.seconds = seconds_since(start);
    start = Clock::now();
    const auto windows = static_cast<std::size_t>(scored->windows.count());
    Tally tally(windows);
    auto done = detail::visit_scored_rows(
        *scored, detail::logit_rows(*original.model), [&](const detail::ScoredRows& rows) {
            monitor.throw_if_cancelled();
            monitor.report(static_cast<std::uint64_t>(rows.window), windows, "logits");
            return add_rows(rows, before->logits(rows, backend), after->logits(rows, backend), tally,
                            backend);
        });
    if (!done)
        return done.error();
    summarize(tally.original, result.original);
    summarize(tally.compressed, result.compressed);
    result.original.seconds += seconds_since(start) / 2.0; // the heads were applied to both at once
    result.compressed.seconds += seconds_since(start) / 2.0;
    result.divergence = summarize(tally);
    return result;
}

} // namespace

Result<TextComparison> compare_on_text(const EvaluatedModel& original, const EvaluatedModel& compressed,
                                       const std::filesystem::path& text, const PerplexityOptions& options,
                                       Backend& backend, Monitor& monitor)
{
    return at_job_border("nothing was measured",
                         [&] { return compare(original, compressed, text, options, backend, monitor); });
}

} // namespace rankscope
