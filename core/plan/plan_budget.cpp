// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/plan_budget.h"

#include "core/base/byte_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace rankscope {
namespace {

/// One way to compress a row, and the request whose curve knows its error.
struct RowOption {
    LayerPlan row;
    Index rank = 0;
    std::size_t request = 0;
};

/// All options of all included rows, with what must be measured for them.
struct OptionTable {
    std::vector<std::size_t> rows;               // index into the plan
    std::vector<std::vector<RowOption>> options; // by included row
    std::vector<CurveRequest> requests;
};

Result<LayerPlan> with_value(const LayerPlan& row, std::string_view name, std::int64_t value)
{
    LayerPlan changed = row;
    auto parameters = row.parameters.with(find_method(row.method)->info(), name, value);
    if (!parameters)
        return parameters.error().in(row.layer);
    changed.parameters = std::move(*parameters);
    return changed;
}

std::vector<Index> possible_ranks(const LayerPlan& row, const LinearLayer& layer,
                                  const BudgetChoices& choices)
{
    const ParameterInfo* rank_info = find_method(row.method)->info().find("rank");
    if (!rank_info)
        return {0};
    if (row.locked || choices.fixed_ranks.contains(row.layer))
        return {row.parameters.integer("rank")};
    const Index highest = std::min({choices.highest_rank, layer.out, layer.in});
    std::vector<Index> ranks;
    for (Index rank = 0; rank <= highest; rank += choices.rank_step) {
        if (static_cast<double>(rank) >= rank_info->minimum)
            ranks.push_back(rank);
    }
    if (ranks.empty())
        ranks.push_back(std::min(layer.out, layer.in));
    return ranks;
}

std::vector<std::int64_t> possible_bits(const LayerPlan& row, const BudgetChoices& choices)
{
    if (!find_method(row.method)->info().find("bits"))
        return {0};
    if (row.locked || choices.fixed_bits.contains(row.layer))
        return {row.parameters.integer("bits")};
    // A codebook need not have all of them.
    const MethodInfo& method = find_method(row.method)->info();
    std::vector<std::int64_t> legal;
    for (const std::int64_t bits : choices.bits) {
        const auto changed = with_value(row, "bits", bits);
        if (!changed || changed->parameters.check(method))
            legal.push_back(bits);
    }
    return legal.empty() ? std::vector{row.parameters.integer("bits")} : legal;
}

/// A nested method is measured at the highest rank only, an iterative one at few ranks.
std::vector<Index> ranks_to_measure(const MethodInfo& method, const std::vector<Index>& wanted,
                                    const BudgetChoices& choices)
{
    if (wanted.size() == 1 || ranks_are_nested(method))
        return {wanted.back()};
    std::vector<Index> ranks = measured_ranks(choices.rank_step, wanted.back());
    ranks.erase(ranks.begin(), std::lower_bound(ranks.begin(), ranks.end(), wanted.front()));
    return ranks;
}

Status add_options(const LayerPlan& row, const LinearLayer& layer, const BudgetChoices& choices,
                   OptionTable& table)
{
    const MethodInfo& method = find_method(row.method)->info();
    const std::vector<Index> ranks = possible_ranks(row, layer, choices);
    std::vector<RowOption>& options = table.options.emplace_back();
    for (const std::int64_t bits : possible_bits(row, choices)) {
        auto at_bits = method.find("bits") ? with_value(row, "bits", bits) : Result<LayerPlan>(row);
        if (!at_bits)
            return at_bits.error();
        table.requests.push_back({*at_bits, ranks_to_measure(method, ranks, choices)});
        for (const Index rank : ranks) {
            auto option =
                method.find("rank") ? with_value(*at_bits, "rank", rank) : Result<LayerPlan>(*at_bits);
            if (!option)
                return option.error();
            options.push_back({std::move(*option), rank, table.requests.size() - 1});
        }
    }
    return {};
}

Result<OptionTable> option_table(const Plan& plan, const Model& model, const BudgetChoices& choices)
{
    OptionTable table;
    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        const LayerPlan& row = plan.rows[i];
        if (!row.include)
            continue;
        table.rows.push_back(i);
        if (auto added = add_options(row, *model.find_linear(row.layer), choices, table); !added)
            return added.error();
    }
    return table;
}

std::vector<BudgetLayer> budget_layers(const OptionTable& table, const std::vector<ErrorCurve>& curves,
                                       const Model& model)
{
    std::vector<BudgetLayer> layers;
    for (const std::vector<RowOption>& options : table.options) {
        BudgetLayer& layer = layers.emplace_back();
        for (const RowOption& option : options)
            layer.options.push_back({planned_bytes(option.row, *model.find_linear(option.row.layer)),
                                     curves[option.request].error_at(option.rank)});
    }
    return layers;
}

/// ω = ΔNLL / e of each layer alone at its cheapest option, no less than a twentieth of the median: what the
/// loss does not notice on so few tokens is not free (methods-learned §5.2).
Status measure_weights(const OptionTable& table, const BudgetChoices& choices,
                       std::vector<BudgetLayer>& layers)
{
    constexpr double k_floor = 0.05;
    if (!choices.loss_increases)
        return internal_error("measured weights need somebody who measures the loss");
    std::vector<LayerPlan> cheapest;
    std::vector<double> errors;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const auto& options = layers[i].options;
        const auto least =
            std::min_element(options.begin(), options.end(),
                             [](const BudgetOption& a, const BudgetOption& b) { return a.bytes < b.bytes; });
        cheapest.push_back(table.options[i][static_cast<std::size_t>(least - options.begin())].row);
        errors.push_back(least->error);
    }
    const auto increases = choices.loss_increases(cheapest);
    if (!increases)
        return increases.error();
    std::vector<double> weights(layers.size(), 0.0);
    for (std::size_t i = 0; i < layers.size(); ++i)
        weights[i] = errors[i] > 0.0 ? std::max(0.0, (*increases)[i]) / errors[i] : 0.0;
    std::vector<double> sorted = weights;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    if (!(*middle > 0.0))
        return bad_input("compressing single layers does not raise the loss on this text", "--weights",
                         "Measure on more or other text, or choose --weights equal");
    for (std::size_t i = 0; i < layers.size(); ++i)
        layers[i].weight = std::max(weights[i], k_floor * *middle);
    return {};
}

Status weigh(const OptionTable& table, const std::vector<ErrorCurve>& curves, const BudgetChoices& choices,
             std::vector<BudgetLayer>& layers)
{
    if (choices.weights == ErrorWeights::Measured)
        return measure_weights(table, choices, layers);
    if (choices.weights == ErrorWeights::Tokens) {
        for (std::size_t i = 0; i < layers.size(); ++i)
            layers[i].weight = curves[table.options[i].front().request].squared_norm;
    }
    return {};
}

} // namespace

Result<SizeBudget> parse_budget(std::string_view text)
{
    constexpr std::string_view k_suffix = "bpw";
    if (text.size() <= k_suffix.size() || text.substr(text.size() - k_suffix.size()) != k_suffix) {
        auto bytes = parse_byte_size(text);
        if (!bytes)
            return usage_error(fmt::format("\"{}\" is no size", text), "--budget",
                               "Give bits per weight such as 2.6bpw, or a size such as 60MB");
        return SizeBudget{0.0, *bytes};
    }
    const std::string_view digits = text.substr(0, text.size() - k_suffix.size());
    double bits = 0.0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (problem != std::errc{} || end != digits.data() + digits.size() || !(bits > 0.0) || !(bits <= 64.0))
        return usage_error(fmt::format("\"{}\" is no number of bits per weight from 0 to 64", digits),
                           "--budget", "Give bits per weight such as 2.6bpw, or a size such as 60MB");
    return SizeBudget{bits, 0};
}

std::uint64_t budget_bytes(const SizeBudget& budget, const Plan& plan, const Model& model)
{
    if (budget.bits_per_weight <= 0.0)
        return budget.bytes;
    double weights = 0.0;
    for (const LayerPlan& row : plan.rows) {
        const LinearLayer* layer = model.find_linear(row.layer);
        if (row.include && layer)
            weights += static_cast<double>(layer->out * layer->in);
    }
    return static_cast<std::uint64_t>(budget.bits_per_weight * weights / 8.0);
}

std::vector<Index> measured_ranks(Index step, Index highest)
{
    std::vector<Index> ranks{0};
    for (Index rank = std::max<Index>(1, step); rank < highest; rank *= 2)
        ranks.push_back(rank);
    if (highest > 0)
        ranks.push_back(highest);
    return ranks;
}

double BudgetedPlan::mean_error() const
{
    double sum = 0.0;
    for (const RowPrediction& row : rows)
        sum += row.squared_error;
    return rows.empty() ? 0.0 : std::sqrt(sum / static_cast<double>(rows.size()));
}

Result<BudgetedPlan> fit_plan_to_budget(const Plan& plan, const SizeBudget& budget,
                                        const BudgetChoices& choices, const CurveSource& source)
{
    if (choices.rank_step < 1 || choices.highest_rank < 0 || choices.bits.empty())
        return usage_error("ranks need a step of at least 1, and there must be a number of bits to choose");
    if (auto legal = plan.check(source.model); !legal)
        return legal.error();
    auto table = option_table(plan, source.model, choices);
    if (!table)
        return table.error();
    const auto curves = measure_curves(source, plan.seed, table->requests);
    if (!curves)
        return curves.error();
    auto layers = budget_layers(*table, *curves, source.model);
    if (auto weighed = weigh(*table, *curves, choices, layers); !weighed)
        return weighed.error();
    BudgetedPlan result;
    result.plan = plan;
    result.budget_bytes = budget_bytes(budget, plan, source.model);
    auto allocation = allocate(layers, result.budget_bytes, {}, source.monitor);
    if (!allocation)
        return allocation.error().in("--budget");
    for (std::size_t i = 0; i < table->rows.size(); ++i) {
        const RowOption& chosen = table->options[i][allocation->choices[i]];
        const ErrorCurve& curve = (*curves)[chosen.request];
        result.plan.rows[table->rows[i]] = chosen.row;
        result.rows.push_back({chosen.row.layer, curve.error_at(chosen.rank), layers[i].weight,
                               !curve.measured_at(chosen.rank)});
    }
    result.allocation = std::move(*allocation);
    return result;
}

} // namespace rankscope
