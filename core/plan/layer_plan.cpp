// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/layer_plan.h"

#include "core/base/atomic_file.h"
#include "core/compute/kquant.h"
#include "core/methods/common_parameters.h"
#include "core/methods/method.h"
#include "core/plan/detail/plan_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

namespace rankscope {
namespace {

constexpr std::string_view k_format = "rankscope.plan";
constexpr std::int64_t k_version = 1;

bool flag_or(const Parameters& parameters, std::string_view name, bool fallback)
{
    const auto found = parameters.values().find(name);
    if (found == parameters.values().end())
        return fallback;
    const auto* flag = std::get_if<bool>(&found->second);
    return flag ? *flag : fallback;
}

Status check_row(const LayerPlan& row, const LinearLayer& layer)
{
    for (const detail::ShapeLimit& limit : detail::shape_limits(layer)) {
        const std::int64_t value = detail::integer_or(row.parameters, limit.name, 0);
        if (value > limit.limit)
            return usage_error(
                fmt::format("{} {} is beyond the matrix, which is {} × {}", limit.meaning, value, layer.out,
                            layer.in),
                row.layer,
                fmt::format("Choose at most {}, or leave the layer out with --set '{}:include=false'",
                            limit.limit, row.layer));
    }
    if (row.parameters.values().contains("codebook") && grid_of(row.parameters).levels == GridLevels::Kquant
        && layer.in % k_kquant_block != 0)
        return usage_error(
            fmt::format("the K types are made of blocks of {} inputs, and this layer has {}", k_kquant_block,
                        layer.in),
            row.layer,
            fmt::format("Choose another codebook for it, as with --set '{}:codebook=uniform'", row.layer));
    if (const std::int64_t group = detail::integer_or(row.parameters, "group", 0); group < -1)
        return usage_error(
            fmt::format("group {} is no group size", group), row.layer,
            "Give the number of inputs that share a scale, 0 for one scale per output channel, or -1 "
            "for one per matrix");
    return {};
}

Json seed_to_json(std::uint64_t seed)
{
    // Beyond 2^63 a JSON number would lose digits.
    if (seed <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        return static_cast<std::int64_t>(seed);
    return std::to_string(seed);
}

Result<std::uint64_t> seed_from_json(const Json& json)
{
    if (json.is_integer() && json.integer() >= 0)
        return static_cast<std::uint64_t>(json.integer());
    if (const std::string* text = json.string_if()) {
        std::uint64_t seed = 0;
        const auto [end, problem] = std::from_chars(text->data(), text->data() + text->size(), seed);
        if (problem == std::errc{} && end == text->data() + text->size() && !text->empty())
            return seed;
    }
    return bad_input("\"seed\" must be a whole number that is not negative");
}

/// Refuses keys that nobody reads: a misspelled one would otherwise be ignored silently.
Status only_keys(const Json& object, std::initializer_list<std::string_view> known)
{
    for (const auto& [key, value] : *object.object_if()) {
        if (std::find(known.begin(), known.end(), key) == known.end())
            return bad_input(fmt::format("unknown key \"{}\"", key), {},
                             fmt::format("Known ones are {}", fmt::join(known, ", ")));
    }
    return {};
}

Result<bool> boolean_member(const Json& object, std::string_view key, bool fallback)
{
    const Json* member = object.find(key);
    if (!member)
        return fallback;
    if (!member->is_bool())
        return bad_input(fmt::format("\"{}\" must be true or false", key));
    return member->boolean();
}

Result<LayerPlan> row_from_json(const Json& json)
{
    if (!json.is_object())
        return bad_input("a row must be an object");
    if (auto known = only_keys(json, {"layer", "include", "method", "parameters", "locked"}); !known)
        return known.error();
    LayerPlan row;
    row.layer = json["layer"].string();
    if (row.layer.empty())
        return bad_input("\"layer\" must name a linear layer");
    auto include = boolean_member(json, "include", true);
    auto locked = boolean_member(json, "locked", false);
    if (!include || !locked)
        return include ? locked.error() : include.error();
    row.include = *include;
    row.locked = *locked;
    row.method = json["method"].string();
    auto method = require_method(row.method);
    if (!method)
        return method.error();
    const Json& parameters = json["parameters"];
    if (!parameters.is_object())
        return bad_input("\"parameters\" must be an object");
    auto read = Parameters::from_json((*method)->info(), parameters);
    if (!read)
        return read.error();
    row.parameters = std::move(*read);
    return row;
}

} // namespace

const LayerPlan* Plan::find(std::string_view layer) const
{
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const LayerPlan& row) { return row.layer == layer; });
    return found == rows.end() ? nullptr : &*found;
}

Json Plan::to_json() const
{
    Json list(Json::Array{});
    for (const LayerPlan& row : rows) {
        Json entry;
        entry.set("layer", row.layer);
        entry.set("include", row.include);
        entry.set("method", row.method);
        entry.set("parameters", row.parameters.to_json());
        entry.set("locked", row.locked);
        list.push_back(std::move(entry));
    }
    Json json;
    json.set("format", k_format);
    json.set("version", k_version);
    json.set("checkpoint_hash", checkpoint_hash);
    json.set("calibration_id", calibration_id);
    json.set("seed", seed_to_json(seed));
    json.set("rows", std::move(list));
    return json;
}

Result<Plan> Plan::from_json(const Json& json)
{
    if (!json.is_object() || json["format"].string() != k_format)
        return bad_input(fmt::format("this is no plan: \"format\" is not \"{}\"", k_format), {},
                         "Make one with rankscope-cli plan");
    if (json["version"].integer() != k_version)
        return bad_input(fmt::format("version {} of the plan format is not known, only {}",
                                     json["version"].dump(), k_version),
                         {}, "Make the plan again with this version of the program");
    if (auto known =
            only_keys(json, {"format", "version", "checkpoint_hash", "calibration_id", "seed", "rows"});
        !known)
        return known.error();
    Plan plan;
    plan.checkpoint_hash = json["checkpoint_hash"].string();
    plan.calibration_id = json["calibration_id"].string();
    auto seed = seed_from_json(json["seed"]);
    if (!seed)
        return seed.error();
    plan.seed = *seed;
    const Json::Array* rows = json["rows"].array_if();
    if (!rows)
        return bad_input("\"rows\" must be a list");
    std::set<std::string, std::less<>> names;
    for (std::size_t i = 0; i < rows->size(); ++i) {
        auto row = row_from_json((*rows)[i]);
        const std::string name = (*rows)[i]["layer"].string();
        const std::string place =
            name.empty() ? fmt::format("row {}", i + 1) : fmt::format("row {} ({})", i + 1, name);
        if (!row) {
            Error error = row.error().in(place);
            error.kind = ErrorKind::BadInput; // it stands in a file
            return error;
        }
        if (!names.insert(row->layer).second)
            return bad_input("the layer has two rows", place, "Remove one of them");
        plan.rows.push_back(std::move(*row));
    }
    return plan;
}

Result<Plan> Plan::read(const std::filesystem::path& file)
{
    auto json = Json::read(file);
    if (!json)
        return json.error();
    auto plan = from_json(*json);
    if (!plan)
        return plan.error().in(file.string());
    return plan;
}

Status Plan::write(const std::filesystem::path& file, bool replace) const
{
    return write_text_file(file, to_json().dump(2) + "\n", replace);
}

Status Plan::check(const Model& model) const
{
    std::set<std::string_view> names;
    for (const LayerPlan& row : rows) {
        const LinearLayer* layer = model.find_linear(row.layer);
        if (!layer)
            return usage_error("the model has no linear layer of this name", row.layer,
                               "Make the plan again for this checkpoint");
        if (!names.insert(row.layer).second)
            return usage_error("the layer has two rows", row.layer, "Remove one of them");
        auto method = require_method(row.method);
        if (!method)
            return method.error().in(row.layer);
        auto legal = Parameters::make((*method)->info(), row.parameters.values());
        if (!legal)
            return legal.error().in(row.layer);
        if (!row.include)
            continue;
        if (auto fits = check_row(row, *layer); !fits)
            return fits;
    }
    return {};
}

Result<Plan> uniform_plan(const Model& model, std::string_view method,
                          const std::map<std::string, ParameterValue, std::less<>>& given, std::uint64_t seed,
                          std::string_view globs)
{
    auto found = require_method(method);
    if (!found)
        return found.error();
    const MethodInfo& info = (*found)->info();
    Plan plan;
    plan.checkpoint_hash = model.checkpoint().header_hash();
    plan.seed = seed;
    bool any = false;
    for (const LinearLayer& layer : model.linears()) {
        const bool include = globs.empty() || glob_match_any(globs, layer.name);
        auto values = detail::with_resolved_rank(given, &layer);
        if (!values)
            return values.error().in("method " + info.id);
        auto parameters = Parameters::make(info, *values);
        if (!parameters)
            return parameters.error().in("method " + info.id);
        // Layers that are left out must be legal too when somebody includes them later.
        auto fitted =
            detail::fit_to_shape(info, std::move(*parameters), include ? given : detail::Given{}, layer);
        if (!fitted)
            return fitted.error();
        LayerPlan row{layer.name, include, info.id, std::move(*fitted), false};
        if (include) {
            any = true;
            if (auto fits = check_row(row, layer); !fits)
                return fits.error();
        }
        plan.rows.push_back(std::move(row));
    }
    if (!any)
        return usage_error(fmt::format("no linear layer matches \"{}\"", globs), "--layers",
                           "rankscope-cli info lists the layers");
    return plan;
}

double planned_bits_per_weight(const LayerPlan& row, const LinearLayer& layer)
{
    UniformGrid grid;
    grid.bits = static_cast<int>(detail::integer_or(row.parameters, "bits", grid.bits));
    grid.group = detail::integer_or(row.parameters, "group", grid.group);
    grid.symmetric = flag_or(row.parameters, "symmetric", false);
    if (row.parameters.values().contains("codebook"))
        grid = grid_of(row.parameters);
    const double weights = static_cast<double>(layer.out * layer.in);
    FactorOptions factors;
    bool lattice = false;
    double signs = 0.0;
    const auto& values = row.parameters.values();
    if (values.contains("factor_bits"))
        factors = factors_of(row.parameters);
    if (values.contains("codebook")) {
        lattice = codebook_of(row.parameters) == Codebook::E8P;
        signs = rotates(row.parameters) ? static_cast<double>(layer.out + layer.in) : 0.0;
    }
    const double low_rank =
        factor_storage_bits(layer.out, layer.in, detail::integer_or(row.parameters, "rank", 0), factors)
        + signs;
    if (!values.contains("bits")) // there is no Q
        return low_rank / weights;
    if (lattice) {
        const Index codes = layer.out * e8p_codes_per_row(layer.in, grid.bits);
        return (16.0 * static_cast<double>(codes + 1) + low_rank) / weights;
    }
    return grid_bits_per_weight(grid, layer.out, layer.in) + low_rank / weights;
}

std::uint64_t planned_bytes(const LayerPlan& row, const LinearLayer& layer)
{
    const double weights = static_cast<double>(layer.out * layer.in);
    return static_cast<std::uint64_t>(std::ceil(planned_bits_per_weight(row, layer) * weights / 8.0));
}

PlanSize planned_size(const Plan& plan, const Model& model)
{
    PlanSize size;
    double bits = 0.0;
    double weights = 0.0;
    for (const LayerPlan& row : plan.rows) {
        const LinearLayer* layer = model.find_linear(row.layer);
        if (!row.include || !layer)
            continue;
        if (const TensorInfo* tensor = model.checkpoint().find(layer->weight()))
            size.original_bytes += tensor->bytes;
        const double count = static_cast<double>(layer->out * layer->in);
        const double layer_bits = planned_bits_per_weight(row, *layer) * count;
        size.planned_bytes += static_cast<std::uint64_t>(std::ceil(layer_bits / 8.0));
        bits += layer_bits;
        weights += count;
    }
    if (weights > 0.0)
        size.bits_per_weight = bits / weights;
    return size;
}

} // namespace rankscope
