// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plan_presets.h"

#include "core/methods/method.h"

#include <algorithm>

namespace rankscope {

using Given = std::map<std::string, ParameterValue, std::less<>>;

namespace {

PlanPreset preset(const char* id, const char* title, const char* method, Given given)
{
    return {QString::fromUtf8(id), QString::fromUtf8(title), method, std::move(given)};
}

Given grid(std::int64_t bits, std::int64_t group) { return {{"bits", bits}, {"group", group}}; }

Given gridAndRank(std::int64_t bits, std::int64_t group, std::int64_t rank)
{
    return {{"bits", bits}, {"group", group}, {"rank", rank}};
}

Given known(const MethodInfo& info, const Given& given)
{
    Given kept;
    for (const auto& [name, value] : given) {
        if (info.find(name))
            kept.emplace(name, value);
    }
    return kept;
}

Index mostRank(const LinearLayer& layer) { return std::min(layer.out, layer.in); }

Status legal(const LayerPlan& row, const LinearLayer& layer)
{
    const auto rank = rowInteger(row, "rank");
    if (rank && *rank > mostRank(layer))
        return usage_error("Rank " + std::to_string(*rank) + " is beyond this matrix of "
                               + std::to_string(layer.out) + " × " + std::to_string(layer.in),
                           layer.name, "Choose at most " + std::to_string(mostRank(layer)));
    const auto k = rowInteger(row, "k");
    if (k && *k > layer.in)
        return usage_error("There are only " + std::to_string(layer.in) + " input channels, "
                               + std::to_string(*k) + " outliers were asked for",
                           layer.name, "Choose fewer outliers");
    const auto method = require_method(row.method);
    return method ? row.parameters.check((*method)->info()) : Status{};
}

Result<LayerPlan> withMethod(const LayerPlan& row, const std::string& id)
{
    const auto method = require_method(id);
    if (!method)
        return method.error();
    const MethodInfo& info = (*method)->info();
    auto parameters = Parameters::make(info, known(info, row.parameters.values()));
    if (!parameters) // a value that the old method allowed and the new one does not: start from its defaults
        parameters = Parameters::make(info, {});
    if (!parameters)
        return parameters.error();
    LayerPlan changed = row;
    changed.method = id;
    changed.parameters = *parameters;
    return changed;
}

} // namespace

QVector<PlanPreset> planPresets()
{
    const QVector<PlanPreset> all = {
        preset("odlri-2", "ODLRI 2-bit, group 64, rank 8", "odlri", gridAndRank(2, 64, 8)),
        preset("odlri-2-64", "ODLRI 2-bit, group 128, rank 64", "odlri", gridAndRank(2, 128, 64)),
        preset("caldera-2", "CALDERA 2-bit, group 64, rank 8", "caldera", gridAndRank(2, 64, 8)),
        preset("svd-residual-4", "Residual SVD 4-bit, group 64, rank 8", "svd_residual",
               gridAndRank(4, 64, 8)),
        preset("gptq-3", "GPTQ 3-bit, group 64", "gptq", grid(3, 64)),
        preset("gptq-4", "GPTQ 4-bit, group 64", "gptq", grid(4, 64)),
        preset("rtn-4", "RTN 4-bit, group 64", "rtn", grid(4, 64)),
        preset("rtn-8", "RTN 8-bit, group 64", "rtn", grid(8, 64)),
    };
    QVector<PlanPreset> available;
    std::copy_if(all.cbegin(), all.cend(), std::back_inserter(available),
                 [](const PlanPreset& candidate) { return find_method(candidate.method) != nullptr; });
    return available;
}

QString defaultPresetId(const Model& model)
{
    return model.architecture().runs() ? QStringLiteral("odlri-2") : QStringLiteral("svd-residual-4");
}

Result<Plan> presetPlan(const PlanPreset& chosen, const Model& model)
{
    const auto method = require_method(chosen.method);
    if (!method)
        return method.error();
    const MethodInfo& info = (*method)->info();
    Given given = known(info, chosen.parameters);
    const auto rank = given.find("rank");
    const std::int64_t wanted = rank == given.end() ? 0 : std::get<std::int64_t>(rank->second);
    if (rank != given.end()) {
        // A rank that every layer allows first, then each layer's own.
        std::int64_t everywhere = wanted;
        for (const LinearLayer& layer : model.linears())
            everywhere = std::min<std::int64_t>(everywhere, mostRank(layer));
        rank->second = everywhere;
    }
    auto plan = uniform_plan(model, chosen.method, given, 0);
    if (!plan || rank == given.end())
        return plan;
    for (LayerPlan& row : plan->rows) {
        const LinearLayer* layer = model.find_linear(row.layer);
        if (!layer)
            continue;
        const auto own = row.parameters.with(info, "rank", std::min<std::int64_t>(wanted, mostRank(*layer)));
        if (!own)
            return own.error().in(row.layer);
        row.parameters = *own;
    }
    return plan;
}

Result<LayerPlan> changedRow(const LayerPlan& row, const LinearLayer& layer, std::string_view name,
                             const ParameterValue& value)
{
    LayerPlan changed = row;
    if (name == "include" || name == "locked") {
        const bool* flag = std::get_if<bool>(&value);
        if (!flag)
            return usage_error("This is switched on or off", layer.name);
        (name == "include" ? changed.include : changed.locked) = *flag;
        return changed;
    }
    if (name == "method") {
        const std::string* id = std::get_if<std::string>(&value);
        auto other = withMethod(row, id ? *id : std::string());
        if (!other)
            return other.error().in(layer.name);
        changed = *other;
    } else {
        const Method* method = find_method(row.method);
        if (!method)
            return usage_error("The method " + row.method + " is not known here", layer.name,
                               "Choose another method");
        if (!method->info().find(name))
            return usage_error(method->info().title + " has no parameter " + std::string(name), layer.name,
                               "Choose a method that has one");
        auto parameters = row.parameters.with(method->info(), name, value);
        if (!parameters)
            return parameters.error().in(layer.name);
        changed.parameters = *parameters;
    }
    if (const Status status = legal(changed, layer); !status)
        return status.error();
    return changed;
}

std::optional<std::int64_t> rowInteger(const LayerPlan& row, std::string_view name)
{
    const auto found = row.parameters.values().find(name);
    if (found == row.parameters.values().end())
        return std::nullopt;
    const auto* value = std::get_if<std::int64_t>(&found->second);
    return value ? std::optional(*value) : std::nullopt;
}

UniformGrid rowGrid(const LayerPlan& row)
{
    UniformGrid grid_of_row;
    if (const auto bits = rowInteger(row, "bits"))
        grid_of_row.bits = static_cast<int>(std::clamp<std::int64_t>(*bits, 2, 8));
    if (const auto group = rowInteger(row, "group"))
        grid_of_row.group = *group;
    const auto symmetric = row.parameters.values().find("symmetric");
    if (symmetric != row.parameters.values().end()) {
        if (const bool* flag = std::get_if<bool>(&symmetric->second))
            grid_of_row.symmetric = *flag;
    }
    return grid_of_row;
}

} // namespace rankscope
