// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/budget.h"

#include "core/base/byte_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace rankscope {
namespace {

constexpr double k_infinite = std::numeric_limits<double>::infinity();
constexpr double k_margin = 1.0 - 1e-12; // equal up to rounding is no improvement
constexpr std::size_t k_thin_factor = 16;
constexpr std::uint64_t k_most_bytes = std::uint64_t{1} << 62;

/// An option that is still in the race, with its index in the layer as given.
struct Candidate {
    std::uint64_t bytes = 0;
    double error = 0.0;
    std::size_t index = 0;
};

/// Those that are better than all cheaper ones, by rising bytes.
std::vector<Candidate> pareto(const BudgetLayer& layer)
{
    std::vector<Candidate> all;
    for (std::size_t i = 0; i < layer.options.size(); ++i) {
        if (!layer.pin || *layer.pin == i)
            all.push_back({layer.options[i].bytes, layer.options[i].error * layer.weight, i});
    }
    std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
        return a.bytes != b.bytes ? a.bytes < b.bytes : a.error < b.error;
    });
    std::vector<Candidate> kept;
    for (const Candidate& candidate : all) {
        if (kept.empty() || candidate.error < kept.back().error)
            kept.push_back(candidate);
    }
    return kept;
}

double slope(const Candidate& from, const Candidate& to)
{
    return (to.error - from.error) / static_cast<double>(to.bytes - from.bytes);
}

/// Positions in a Pareto list that lie on its lower convex hull.
std::vector<std::size_t> hull(const std::vector<Candidate>& list)
{
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < list.size(); ++i) {
        while (kept.size() > 1
               && slope(list[kept[kept.size() - 2]], list[kept.back()]) >= slope(list[kept.back()], list[i]))
            kept.pop_back();
        kept.push_back(i);
    }
    return kept;
}

/// From one hull option of a layer to the next.
struct Step {
    std::size_t layer = 0;
    std::size_t target = 0; ///< position in the layer's Pareto list
    std::uint64_t bytes = 0;
    double gain = 0.0;
    double slope = 0.0;
};

/// The linear relaxation of layers `first` and later: their cheapest options, then hull steps by falling gain
/// per byte. Errors are summed from the end, so that small remainders keep their digits.
class Relaxation {
public:
    Relaxation(std::span<const std::vector<Candidate>> lists, const std::vector<Step>& steps,
               std::size_t first)
    {
        double best = 0.0;
        for (std::size_t k = first; k < lists.size(); ++k) {
            base_bytes_ += lists[k].front().bytes;
            best += lists[k].back().error;
        }
        bytes_.push_back(0);
        for (std::size_t s = 0; s < steps.size(); ++s) {
            if (steps[s].layer < first)
                continue;
            used_.push_back(s);
            bytes_.push_back(bytes_.back() + steps[s].bytes);
        }
        errors_.assign(bytes_.size(), best);
        for (std::size_t i = used_.size(); i-- > 0;)
            errors_[i] = errors_[i + 1] + steps[used_[i]].gain;
    }

    std::uint64_t base_bytes() const { return base_bytes_; }
    /// Steps that fit whole into `room` beyond base_bytes.
    std::size_t whole_steps(std::uint64_t room) const
    {
        return static_cast<std::size_t>(std::upper_bound(bytes_.begin(), bytes_.end(), room) - bytes_.begin())
               - 1;
    }
    /// The same where at most `from` can fit, for rooms that shrink little by little.
    std::size_t whole_steps(std::uint64_t room, std::size_t from) const
    {
        while (bytes_[from] > room)
            --from;
        return from;
    }
    /// Error after `count` whole steps, a completion that can be had.
    double rounded(std::size_t count) const { return errors_[count]; }
    /// With the fraction of the next step that fits: nothing is better.
    double bound(std::uint64_t room, std::size_t count) const
    {
        if (count == used_.size())
            return errors_[count];
        const double share = static_cast<double>(room - bytes_[count])
                             / static_cast<double>(bytes_[count + 1] - bytes_[count]);
        return errors_[count] - share * (errors_[count] - errors_[count + 1]);
    }
    /// The step (of all layers) behind the i-th one here.
    std::size_t step(std::size_t i) const { return used_[i]; }

private:
    std::uint64_t base_bytes_ = 0;
    std::vector<std::uint64_t> bytes_; // cumulative
    std::vector<double> errors_;
    std::vector<std::size_t> used_;
};

/// A Pareto-optimal partial sum over the first layers.
struct State {
    std::uint64_t bytes = 0;
    double error = 0.0;
    double bound = 0.0; ///< least error of any completion
    std::uint32_t source = 0;
    std::uint32_t option = 0;
};

struct Origin {
    std::uint32_t source = 0;
    std::uint32_t option = 0;
};

/// One problem on its way to the answer. Layers are in falling order of what is at stake in each.
class Search {
public:
    Search(std::span<const BudgetLayer> layers, std::uint64_t budget, const AllocationOptions& options,
           Monitor& monitor);

    void round_relaxation();
    void run_exact();
    Allocation answer(std::span<const BudgetLayer> layers) const;

private:
    double error_of(const std::vector<std::size_t>& picks) const;
    void fill_slack(std::vector<std::size_t>& picks, std::uint64_t left) const;
    void offer(std::vector<std::size_t> picks);
    std::vector<std::size_t> useful_options(std::size_t layer) const;
    std::vector<State> expand(std::size_t layer, const std::vector<State>& states, const Relaxation& rest);
    void offer_completion(std::size_t layer, const State& state, const Relaxation& rest, std::size_t count);
    void thin(std::vector<State>& states);

    std::uint64_t budget_;
    AllocationOptions options_;
    Monitor& monitor_;
    std::vector<std::size_t> order_; // place here → layer as given
    std::vector<std::vector<Candidate>> lists_;
    std::vector<Step> steps_;
    double lower_bound_ = 0.0;
    double price_ = 0.0; // gain per byte at the relaxation's cut

    std::vector<std::size_t> best_;
    double best_error_ = k_infinite;
    bool proven_ = false;
    std::vector<std::vector<Origin>> origins_; // of the states after each layer
};

Search::Search(std::span<const BudgetLayer> layers, std::uint64_t budget, const AllocationOptions& options,
               Monitor& monitor)
    : budget_(budget), options_(options), monitor_(monitor), order_(layers.size())
{
    std::vector<std::vector<Candidate>> lists;
    for (const BudgetLayer& layer : layers)
        lists.push_back(pareto(layer));
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    const auto stake = [&](std::size_t i) { return lists[i].front().error - lists[i].back().error; };
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::size_t a, std::size_t b) { return stake(a) > stake(b); });
    for (const std::size_t i : order_)
        lists_.push_back(std::move(lists[i]));
    for (std::size_t k = 0; k < lists_.size(); ++k) {
        const std::vector<std::size_t> corners = hull(lists_[k]);
        for (std::size_t j = 1; j < corners.size(); ++j) {
            const Candidate& from = lists_[k][corners[j - 1]];
            const Candidate& to = lists_[k][corners[j]];
            steps_.push_back({k, corners[j], to.bytes - from.bytes, from.error - to.error, slope(from, to)});
        }
    }
    // A layer's own steps are in this order already: its hull is convex.
    std::stable_sort(steps_.begin(), steps_.end(),
                     [](const Step& a, const Step& b) { return a.slope < b.slope; });
}

double Search::error_of(const std::vector<std::size_t>& picks) const
{
    double error = 0.0;
    for (std::size_t k = picks.size(); k-- > 0;)
        error += lists_[k][picks[k]].error;
    return error;
}

void Search::offer(std::vector<std::size_t> picks)
{
    const double error = error_of(picks);
    if (error < best_error_) {
        best_error_ = error;
        best_ = std::move(picks);
    }
}

void Search::fill_slack(std::vector<std::size_t>& picks, std::uint64_t left) const
{
    while (true) {
        double gain = 0.0;
        std::size_t layer = 0;
        std::size_t target = 0;
        for (std::size_t k = 0; k < lists_.size(); ++k) {
            const Candidate& now = lists_[k][picks[k]];
            for (std::size_t j = picks[k] + 1; j < lists_[k].size() && lists_[k][j].bytes - now.bytes <= left;
                 ++j) {
                if (now.error - lists_[k][j].error > gain) {
                    gain = now.error - lists_[k][j].error;
                    layer = k;
                    target = j;
                }
            }
        }
        if (gain <= 0.0)
            return;
        left -= lists_[layer][target].bytes - lists_[layer][picks[layer]].bytes;
        picks[layer] = target;
    }
}

void Search::round_relaxation()
{
    const Relaxation whole(lists_, steps_, 0);
    std::uint64_t left = budget_ - whole.base_bytes();
    const std::size_t cut = whole.whole_steps(left);
    lower_bound_ = whole.bound(left, cut);
    price_ = cut < steps_.size() ? -steps_[cut].slope : 0.0;

    std::vector<std::size_t> picks(lists_.size(), 0);
    std::vector<bool> stopped(lists_.size(), false); // a step that was left out ends its layer's climb
    for (const Step& step : steps_) {
        if (stopped[step.layer] || step.bytes > left) {
            stopped[step.layer] = true;
            continue;
        }
        picks[step.layer] = step.target;
        left -= step.bytes;
    }
    fill_slack(picks, left);
    offer(std::move(picks));
}

/// By the price of a byte: an option that costs more than the whole gap to the relaxation is in no better
/// answer.
std::vector<std::size_t> Search::useful_options(std::size_t layer) const
{
    const auto cost = [&](const Candidate& c) { return c.error + price_ * static_cast<double>(c.bytes); };
    double least = k_infinite;
    for (const Candidate& candidate : lists_[layer])
        least = std::min(least, cost(candidate));
    const double scale = best_error_ + price_ * static_cast<double>(budget_);
    const double slack = best_error_ - lower_bound_ + 1e-12 * scale; // the last term: rounding of these sums
    std::vector<std::size_t> useful;
    for (std::size_t j = 0; j < lists_[layer].size(); ++j) {
        if (cost(lists_[layer][j]) - least <= slack)
            useful.push_back(j);
    }
    return useful;
}

void Search::offer_completion(std::size_t layer, const State& state, const Relaxation& rest,
                              std::size_t count)
{
    std::vector<std::size_t> picks(lists_.size(), 0);
    picks[layer] = state.option;
    std::uint32_t source = state.source;
    for (std::size_t k = layer; k-- > 0;) {
        picks[k] = origins_[k][source].option;
        source = origins_[k][source].source;
    }
    for (std::size_t i = 0; i < count; ++i)
        picks[steps_[rest.step(i)].layer] = steps_[rest.step(i)].target;
    offer(std::move(picks));
}

std::vector<State> Search::expand(std::size_t layer, const std::vector<State>& states, const Relaxation& rest)
{
    std::vector<State> next;
    State best;
    double best_total = best_error_ * k_margin;
    std::size_t best_count = 0;
    bool found = false;
    const std::uint64_t limit = budget_ - rest.base_bytes();
    for (const std::size_t j : useful_options(layer)) {
        monitor_.throw_if_cancelled();
        const Candidate& option = lists_[layer][j];
        if (states.front().bytes + option.bytes > limit)
            continue;
        std::size_t count = rest.whole_steps(limit - states.front().bytes - option.bytes);
        for (std::size_t i = 0; i < states.size(); ++i) {
            const std::uint64_t bytes = states[i].bytes + option.bytes;
            if (bytes > limit)
                break; // states rise in bytes
            count = rest.whole_steps(limit - bytes, count);
            State state{bytes, states[i].error + option.error, 0.0, static_cast<std::uint32_t>(i),
                        static_cast<std::uint32_t>(j)};
            const double total = state.error + rest.rounded(count);
            if (total < best_total) {
                best_total = total * k_margin;
                best = state;
                best_count = count;
                found = true;
            }
            state.bound = state.error + rest.bound(limit - bytes, count);
            if (state.bound < best_error_ * k_margin)
                next.push_back(state);
        }
        if (next.size() / k_thin_factor > options_.max_states)
            thin(next); // before the list outgrows memory
    }
    if (found)
        offer_completion(layer, best, rest, best_count);
    return next;
}

/// Only Pareto-optimal states that can still win, by rising bytes, and no more than allowed.
void Search::thin(std::vector<State>& states)
{
    const double limit = best_error_ * k_margin;
    std::erase_if(states, [&](const State& state) { return !(state.bound < limit); });
    std::sort(states.begin(), states.end(), [](const State& a, const State& b) {
        if (a.bytes != b.bytes)
            return a.bytes < b.bytes;
        return a.error != b.error     ? a.error < b.error
               : a.source != b.source ? a.source < b.source
                                      : a.option < b.option;
    });
    double least = k_infinite;
    std::erase_if(states, [&](const State& state) {
        const bool dominated = !(state.error < least);
        least = std::min(least, state.error);
        return dominated;
    });
    if (states.size() <= options_.max_states)
        return;
    proven_ = false;
    const auto kept = states.begin() + static_cast<std::ptrdiff_t>(options_.max_states);
    std::nth_element(states.begin(), kept, states.end(), [](const State& a, const State& b) {
        return a.bound != b.bound ? a.bound < b.bound : a.bytes < b.bytes;
    });
    states.erase(kept, states.end());
    std::sort(states.begin(), states.end(), [](const State& a, const State& b) { return a.bytes < b.bytes; });
}

void Search::run_exact()
{
    proven_ = true;
    std::vector<State> states{State{}};
    for (std::size_t k = 0; k < lists_.size() && !states.empty(); ++k) {
        monitor_.report(k, lists_.size(), "allot");
        states = expand(k, states, Relaxation(lists_, steps_, k + 1));
        thin(states);
        std::vector<Origin>& origins = origins_.emplace_back();
        origins.reserve(states.size());
        for (const State& state : states)
            origins.push_back({state.source, state.option});
    }
    // After the last layer nothing remains to be completed: the best state was offered as it was made.
}

Allocation Search::answer(std::span<const BudgetLayer> layers) const
{
    Allocation result;
    result.choices.resize(layers.size());
    for (std::size_t k = 0; k < lists_.size(); ++k)
        result.choices[order_[k]] = lists_[k][best_[k]].index;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const BudgetOption& option = layers[i].options[result.choices[i]];
        result.error += option.error * layers[i].weight;
        result.bytes += option.bytes;
    }
    result.lower_bound = std::min(lower_bound_, result.error);
    // A relaxation that happens to be whole needs no search.
    result.proven = proven_ || result.error * k_margin <= lower_bound_;
    return result;
}

Status check(std::span<const BudgetLayer> layers)
{
    std::uint64_t most = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const BudgetLayer& layer = layers[i];
        const std::string place = fmt::format("layer {} of {}", i + 1, layers.size());
        if (layer.options.empty())
            return usage_error("there is no option to choose from", place);
        if (layer.pin && *layer.pin >= layer.options.size())
            return usage_error(
                fmt::format("option {} is pinned, but there are {}", *layer.pin + 1, layer.options.size()),
                place);
        if (!(layer.weight >= 0.0) || !std::isfinite(layer.weight))
            return usage_error(fmt::format("the weight {} is not a number from 0 up", layer.weight), place);
        std::uint64_t largest = 0;
        for (const BudgetOption& option : layer.options) {
            if (!(option.error >= 0.0) || !std::isfinite(option.error * layer.weight))
                return usage_error(fmt::format("the error {} is not a number from 0 up", option.error),
                                   place);
            largest = std::max(largest, option.bytes);
        }
        if (largest > k_most_bytes - most)
            return usage_error("the sizes of the options add up to more than can be counted", place);
        most += largest;
    }
    return {};
}

} // namespace

Result<std::uint64_t> least_bytes(std::span<const BudgetLayer> layers)
{
    if (auto sound = check(layers); !sound)
        return sound.error();
    std::uint64_t bytes = 0;
    for (const BudgetLayer& layer : layers)
        bytes += pareto(layer).front().bytes;
    return bytes;
}

Result<Allocation> allocate(std::span<const BudgetLayer> layers, std::uint64_t budget,
                            const AllocationOptions& options, Monitor& monitor)
{
    const auto least = least_bytes(layers);
    if (!least)
        return least.error();
    if (*least > budget)
        return usage_error(
            fmt::format("the budget of {} bytes ({}) is too small: the cheapest options take {} "
                        "bytes ({})",
                        budget, format_byte_size(budget), *least, format_byte_size(*least)),
            {}, fmt::format("Give at least {} bytes", *least));
    Search search(layers, std::min(budget, k_most_bytes), options, monitor);
    search.round_relaxation();
    if (options.exact)
        search.run_exact();
    return search.answer(layers);
}

Result<BudgetLayer> couple(std::span<const BudgetLayer> layers)
{
    if (layers.empty())
        return usage_error("there is no layer to couple");
    if (auto sound = check(layers); !sound)
        return sound.error();
    BudgetLayer sum;
    sum.options.resize(layers.front().options.size());
    for (const BudgetLayer& layer : layers) {
        if (layer.options.size() != sum.options.size())
            return usage_error(fmt::format("coupled layers need the same options, but have {} and {}",
                                           sum.options.size(), layer.options.size()));
        if (layer.pin && sum.pin && *layer.pin != *sum.pin)
            return usage_error("coupled layers are pinned to different options");
        if (layer.pin)
            sum.pin = layer.pin;
        for (std::size_t j = 0; j < sum.options.size(); ++j) {
            sum.options[j].bytes += layer.options[j].bytes;
            sum.options[j].error += layer.weight * layer.options[j].error;
        }
    }
    return sum;
}

} // namespace rankscope
