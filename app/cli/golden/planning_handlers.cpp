// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/plan/budget.h"

namespace rankscope::golden {
namespace {

Result<std::vector<BudgetLayer>> budget_layers(const GoldenCase& golden)
{
    const Json::Array* lists = golden.parameters()["layers"].array_if();
    if (!lists)
        return bad_input("the case holds no list of layers");
    std::vector<BudgetLayer> layers;
    for (const Json& list : *lists) {
        const Json::Array* options = list.array_if();
        if (!options)
            return bad_input("a layer must be a list of options");
        BudgetLayer& layer = layers.emplace_back();
        for (const Json& option : *options) {
            if (!option["bytes"].is_integer() || option["bytes"].integer() < 0
                || !option["error"].is_number())
                return bad_input("an option must have bytes and an error");
            layer.options.push_back(
                {static_cast<std::uint64_t>(option["bytes"].integer()), option["error"].number()});
        }
    }
    return layers;
}

/// A case without an expected error is one that no choice can meet.
Status check_allocate(const GoldenCase& golden, Backend&, Verdict& verdict)
{
    const auto layers = budget_layers(golden);
    if (!layers)
        return layers.error();
    const std::int64_t budget = golden.parameters()["budget"].integer(-1);
    if (budget < 0)
        return bad_input("the case holds no budget");
    const auto allocation = allocate(*layers, static_cast<std::uint64_t>(budget));
    const bool feasible = golden.json()["scalars"].find("error") != nullptr;
    verdict.scalar("feasible", feasible ? 1.0 : 0.0, allocation ? 1.0 : 0.0, 0.0);
    if (!allocation || !feasible)
        return {};
    verdict.scalar("error", allocation->error);
    verdict.scalar("bytes", static_cast<double>(allocation->bytes));
    verdict.scalar("lp_lower_bound", allocation->lower_bound);
    verdict.scalar("proven", 1.0, allocation->proven ? 1.0 : 0.0, 0.0);
    return {};
}

} // namespace

std::vector<Handler> planning_handlers() { return {{"allocate", {}, check_allocate}}; }

} // namespace rankscope::golden
