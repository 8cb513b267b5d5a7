// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/case_parameters.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::cli {
namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

/// What there is one way for, with the value that says so; null: any, because what it tunes is switched off.
const Json::Object& fixed_parameters()
{
    static const Json::Object fixed{
        {"codebook", "uniform"},
        {"rht", false},
        {"factor_bits", 16},
        {"hessian_downdate", false},
        {"static_groups", true},
        {"balance", "sqrt"},
        {"steps", 100},
        {"shrink", 0.8},
        {"p", 2.4},
        {"factor_scale", {}},
        {"lplr_iterations", {}},
        {"alpha", {}}, // of ASVD
        {"order", Json(Json::Array{"Q", "LR"})},
    };
    return fixed;
}

/// In the methods' spelling: cases say true for the searched grid and give the order as a list.
Json spelled(const ParameterInfo& parameter, const Json& value)
{
    const std::string& name = parameter.name;
    if (name == "clip_search" && value.is_bool())
        return value.boolean() ? "grid" : "none";
    if (name == "order" && value.is_array())
        return value == fixed_parameters().at("order") ? "q_lr" : "lr_q";
    if (parameter.type == ParameterType::Choice && (value.is_bool() || value.is_integer()))
        return value.dump();
    return value;
}

Result<ParameterValue> value_of(const Json& json)
{
    if (json.is_bool())
        return ParameterValue(json.boolean());
    if (json.is_integer())
        return ParameterValue(json.integer());
    if (json.is_number())
        return ParameterValue(json.number());
    if (json.is_string())
        return ParameterValue(json.string());
    return usage_error("it is neither a number nor a text nor true or false");
}

} // namespace

Result<Given> case_parameters(const MethodInfo& method, const Json& parameters)
{
    Given given;
    for (const auto& [name, value] : Given{{"clip_search", std::string("none")},
                                           {"act_order", false},
                                           {"tune_passes", std::int64_t{0}},
                                           {"early_stop", false},
                                           {"keep_best", false}}) {
        if (method.find(name))
            given[name] = value;
    }
    const Json::Object* members = parameters.object_if();
    if (!members)
        return usage_error("there is no object \"parameters\"");
    for (const auto& [given_name, json] : *members) {
        // Cases of NormalFloat call the group a block.
        const std::string name = given_name == "block" && method.find("group") ? "group" : given_name;
        if (const ParameterInfo* parameter = method.find(name)) {
            auto value = value_of(spelled(*parameter, json));
            if (!value)
                return value.error().in("parameter " + name);
            given[name] = std::move(*value);
            continue;
        }
        const auto fixed = fixed_parameters().find(name);
        if (fixed == fixed_parameters().end())
            return usage_error(fmt::format("method {} has no parameter {}", method.id, name));
        if (!fixed->second.is_null() && !(fixed->second == json))
            return usage_error(
                fmt::format("{} = {} is not supported, only {}", name, json.dump(), fixed->second.dump()));
    }
    return given;
}

} // namespace rankscope::cli
