// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/golden/handlers.h"

#include "app/cli/case_parameters.h"
#include "core/quantize/rounding.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope::golden {
namespace {

/// The searched grid: cases say true for it.
ClipSearch clip_search(const Json& value)
{
    if (value.is_bool())
        return value.boolean() ? ClipSearch::Grid : ClipSearch::None;
    const std::string name = value.string("none");
    return name == "shrink" ? ClipSearch::Shrink : name == "grid" ? ClipSearch::Grid : ClipSearch::None;
}

} // namespace

const Handler* find_handler(std::string_view method)
{
    static const std::vector<Handler> table = [] {
        std::vector<Handler> all;
        for (const auto& part : {rounding_handlers(), codebook_handlers(), low_rank_handlers(),
                                 joint_handlers(), lrc_handlers(), learned_handlers(), transform_handlers(),
                                 statistics_handlers(), planning_handlers(), evaluation_handlers()})
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
    if (golden.method() == "normal_float" || golden.method() == "mxint") {
        const bool normal_float = golden.method() == "normal_float";
        grid.levels = normal_float ? GridLevels::NormalFloat : GridLevels::MxInt;
        grid.bits = static_cast<int>(given["width"].integer(grid.bits));
        grid.group = given["block"].integer(normal_float ? 64 : 32);
        grid.symmetric = true;
        return grid;
    }
    grid.symmetric = given["symmetric"].boolean();
    grid.rule = given["sym_rule"].string() == "restricted" ? SymmetricRule::Restricted : SymmetricRule::Full;
    grid.clip = clip_search(given["clip_search"]);
    grid.clip_steps = static_cast<int>(given["steps"].integer(grid.clip_steps));
    grid.clip_shrink = given["shrink"].number(grid.clip_shrink);
    grid.clip_norm = given["p"].number(grid.clip_norm);
    return grid;
}

Result<Decomposition> run_method(std::string_view id, const GoldenCase& golden, const Moments* moments,
                                 Backend& backend,
                                 const std::map<std::string, ParameterValue, std::less<>>& changed)
{
    const auto method = require_method(id);
    if (!method)
        return method.error();
    const MethodInfo& info = (*method)->info();
    auto given = cli::case_parameters(info, golden.parameters());
    if (!given)
        return given.error();
    for (const auto& [name, value] : changed)
        given->insert_or_assign(name, value);
    auto parameters = Parameters::make(info, *given);
    if (!parameters)
        return parameters.error();
    LayerProblem problem;
    problem.weight = backend.upload(golden.single("W"));
    problem.moments = moments;
    problem.name = golden.name();
    problem.keep_iterates = true;
    const Incoherence signs(golden.tensor("signs_left").transpose(),
                            golden.tensor("signs_right").transpose());
    if (!signs.empty())
        problem.transform = &signs;
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
