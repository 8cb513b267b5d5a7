// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/rank_allotment.h"

#include "core/methods/method.h"

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

std::vector<Index> ranks_of(const LayerSpectrum& spectrum, const LinearLayer& layer,
                            const RankAllotment::Ranks& limits)
{
    const Index full = std::min({layer.out, layer.in, spectrum.residual.size(), limits.highest});
    std::vector<Index> ranks;
    for (Index rank = 0; rank <= full; rank += limits.step) {
        ranks.push_back(rank);
        if (!(spectrum.predicted_error(rank) > 0.0))
            break;
    }
    return ranks;
}

double squared_error(const LayerSpectrum* spectrum, Index rank)
{
    if (spectrum == nullptr)
        return 0.0;
    const double error = spectrum->predicted_error(std::min(rank, spectrum->residual.size()));
    return std::isfinite(error) ? error * error : 0.0;
}

} // namespace

Result<RankAllotment> RankAllotment::make(const Plan& plan, const Model& model,
                                          std::span<const std::shared_ptr<const LayerSpectrum>> spectra,
                                          const Ranks& ranks)
{
    if (ranks.step < 1 || spectra.size() != plan.rows.size())
        return usage_error("ranks need a step of at least 1, and each row of the plan one spectrum");
    RankAllotment allotment;
    allotment.plan_ = plan;
    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        const LayerPlan& planned = plan.rows[i];
        if (!planned.include)
            continue;
        const LinearLayer* layer = model.find_linear(planned.layer);
        const Method* method = find_method(planned.method);
        if (layer == nullptr || method == nullptr)
            return usage_error("the plan does not fit this checkpoint", planned.layer, "Make the plan again");
        const LayerSpectrum* spectrum = spectra[i].get();
        Row row{i, {}, spectrum != nullptr};
        BudgetLayer options;
        const auto add = [&](const LayerPlan& option, Index rank) {
            options.options.push_back({planned_bytes(option, *layer), squared_error(spectrum, rank)});
            row.options.push_back(option);
        };
        const ParameterInfo* info = method->info().find("rank");
        if (info == nullptr || spectrum == nullptr || planned.locked) {
            add(planned, info == nullptr ? 0 : planned.parameters.integer("rank"));
        } else {
            for (const Index rank : ranks_of(*spectrum, *layer, ranks)) {
                auto parameters = planned.parameters.with(method->info(), "rank", std::int64_t{rank});
                if (!parameters) // below what the method takes
                    continue;
                LayerPlan option = planned;
                option.parameters = std::move(*parameters);
                add(option, rank);
            }
            if (row.options.empty())
                add(planned, planned.parameters.integer("rank"));
            allotment.free_rows_ += row.options.size() > 1 ? 1 : 0;
        }
        const auto bytes = [](const BudgetOption& option) { return option.bytes; };
        allotment.least_bytes_ += std::ranges::min(options.options, {}, bytes).bytes;
        allotment.most_bytes_ += std::ranges::max(options.options, {}, bytes).bytes;
        allotment.rows_.push_back(std::move(row));
        allotment.layers_.push_back(std::move(options));
    }
    if (allotment.free_rows_ == 0)
        return usage_error("no row of the plan has a rank that could change", {},
                           "Measure the layers, unlock rows, or choose a method with a low-rank part");
    return allotment;
}

Result<RankAllotment::Choice> RankAllotment::at(std::uint64_t bytes, bool exact, Monitor& monitor) const
{
    AllocationOptions options;
    options.exact = exact;
    const auto allocation = allocate(layers_, bytes, options, monitor);
    if (!allocation)
        return allocation.error();
    Choice choice;
    choice.plan = plan_;
    choice.bytes = allocation->bytes;
    choice.proven = allocation->proven;
    double sum = 0.0;
    Index known = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        const std::size_t taken = allocation->choices[i];
        choice.plan.rows[rows_[i].index] = rows_[i].options[taken];
        if (!rows_[i].known)
            continue;
        const double squared = layers_[i].options[taken].error;
        sum += squared;
        choice.worst_error = std::max(choice.worst_error, std::sqrt(squared));
        ++known;
    }
    choice.mean_error = known > 0 ? std::sqrt(sum / static_cast<double>(known)) : 0.0;
    return choice;
}

} // namespace rankscope
