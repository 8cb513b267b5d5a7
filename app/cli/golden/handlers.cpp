// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "core/quantize/rounding.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::golden {
namespace {

using Given = std::map<std::string, ParameterValue, std::less<>>;

/// Names in the cases for what this build does in one way only, with the value that says so; null: any value,
/// because the parameter is about something that the other ones switch off.
struct FixedParameter {
    std::string_view name;
    Json value;
};

const std::vector<FixedParameter>& fixed_parameters()
{
    static const std::vector<FixedParameter> fixed{
        {"codebook", "uniform"},
        {"rht", false},
        {"factor_bits", 16},
        {"hessian_downdate", false},
        {"static_groups", true},
        {"balance", "sqrt"},
        {"steps", 100},
        {"shrink", 0.8},
        {"p", 2.4},
        {"lplr_iterations", nullptr},
        {"factor_scale", nullptr},
        {"order", Json(Json::Array{"Q", "LR"})},
    };
    return fixed;
}

/// The text of a parameter in our spelling: the cases say true for the searched grid and give the order as a
/// list.
Json spelled(std::string_view name, const Json& value)
{
    if (name == "clip_search" && value.is_bool())
        return value.boolean() ? "grid" : "none";
    if (name == "order" && value.is_array())
        return value == Json(Json::Array{"Q", "LR"}) ? "q_lr" : "lr_q";
    return value;
}

Status accept_fixed(const std::string& name, const Json& value)
{
    for (const FixedParameter& fixed : fixed_parameters())
        if (fixed.name == name && (fixed.value.is_null() || fixed.value == value))
            return {};
    return usage_error(fmt::format("parameter {} = {} is not supported", name, value.dump()));
}

/// Defaults of the cases where they are silent, which are not those of the methods.
Given silent_defaults(const MethodInfo& info)
{
    Given given;
    const Given defaults{{"clip_search", std::string("none")},
                         {"act_order", false},
                         {"tune_passes", std::int64_t{0}},
                         {"early_stop", false}};
    for (const auto& [name, value] : defaults)
        if (info.find(name))
            given[name] = value;
    return given;
}

} // namespace

const Handler* find_handler(std::string_view method)
{
    static const std::vector<Handler> table = [] {
        std::vector<Handler> all;
        for (const auto& part : {rounding_handlers(), codebook_handlers(), low_rank_handlers(),
                                 joint_handlers(), transform_handlers(), statistics_handlers()})
            all.insert(all.end(), part.begin(), part.end());
        return all;
    }();
    const auto found = std::find_if(table.begin(), table.end(),
                                    [&](const Handler& handler) { return handler.method == method; });
    return found == table.end() ? nullptr : &*found;
}

Index integer_parameter(const GoldenCase& golden, std::string_view name, Index fallback)
{
    return golden.parameters()[name].integer(fallback);
}

UniformGrid grid_parameter(const GoldenCase& golden)
{
    const Json& given = golden.parameters();
    UniformGrid grid;
    grid.bits = static_cast<int>(given["bits"].integer(grid.bits));
    grid.group = given["group"].integer(0);
    grid.symmetric = given["symmetric"].boolean();
    grid.rule = given["sym_rule"].string() == "restricted" ? SymmetricRule::Restricted : SymmetricRule::Full;
    const std::string clip = spelled("clip_search", given["clip_search"]).string("none");
    grid.clip = clip == "shrink" ? ClipSearch::Shrink : clip == "grid" ? ClipSearch::Grid : ClipSearch::None;
    grid.clip_steps = static_cast<int>(given["steps"].integer(grid.clip_steps));
    grid.clip_shrink = given["shrink"].number(grid.clip_shrink);
    grid.clip_norm = given["p"].number(grid.clip_norm);
    return grid;
}

Result<Decomposition> run_method(std::string_view id, const GoldenCase& golden, const Moments* moments,
                                 Backend& backend)
{
    const auto method = require_method(id);
    if (!method)
        return method.error();
    const MethodInfo& info = (*method)->info();
    Json given_json{Json::Object{}};
    for (const auto& [name, value] : silent_defaults(info))
        given_json.set(name, to_json(value));
    if (const Json::Object* members = golden.parameters().object_if()) {
        for (const auto& [name, value] : *members) {
            if (info.find(name))
                given_json.set(name, spelled(name, value));
            else if (auto accepted = accept_fixed(name, value); !accepted)
                return accepted.error();
        }
    }
    auto parameters = Parameters::from_json(info, given_json);
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(golden.single("W"));
    problem.moments = moments;
    problem.name = golden.name();
    problem.keep_iterates = true;
    return (*method)->decompose(problem, *parameters, backend, silent_monitor());
}

Moments case_moments(const GoldenCase& golden)
{
    Moments moments;
    if (golden.has("X")) {
        const MatrixD& x = golden.tensor("X");
        moments.tokens = static_cast<std::uint64_t>(x.cols());
        moments.hessian = x * x.transpose() / static_cast<double>(std::max<Index>(1, x.cols()));
        moments.mean_abs = x.cwiseAbs().rowwise().mean();
        moments.max_abs = x.cwiseAbs().rowwise().maxCoeff();
    }
    if (golden.has("H"))
        moments.hessian = golden.tensor("H");
    return moments;
}

Moments damped_moments(const GoldenCase& golden)
{
    Moments moments = case_moments(golden);
    Matrix weight = golden.single("W");
    if (weight.cols() != moments.hessian.rows())
        weight.setZero(1, moments.hessian.rows());
    prepare_hessian(moments.hessian, weight, golden.parameters()["damp"].number(0.01));
    return moments;
}

} // namespace rankscope::golden
