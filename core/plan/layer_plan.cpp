// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/plan/layer_plan.h"

#include "core/base/atomic_file.h"
#include "core/compute/kquant.h"
#include "core/methods/common_parameters.h"
#include "core/methods/method.h"
#include "core/methods/rank_share.h"

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

using Given = std::map<std::string, ParameterValue, std::less<>>;

std::int64_t integer_or(const Parameters& parameters, std::string_view name, std::int64_t fallback)
{
    const auto found = parameters.values().find(name);
    if (found == parameters.values().end())
        return fallback;
    const auto* number = std::get_if<std::int64_t>(&found->second);
    return number ? *number : fallback;
}

bool flag_or(const Parameters& parameters, std::string_view name, bool fallback)
{
    const auto found = parameters.values().find(name);
    if (found == parameters.values().end())
        return fallback;
    const auto* flag = std::get_if<bool>(&found->second);
    return flag ? *flag : fallback;
}

/// What a shape allows for the parameters that depend on it.
struct ShapeLimit {
    std::string_view name;
    Index limit;
    std::string_view meaning;
};

std::vector<ShapeLimit> shape_limits(const LinearLayer& layer)
{
    return {{"rank", std::min(layer.out, layer.in), "rank"}, {"k", layer.in, "number of outlier channels"}};
}

/// Lowers the parameters not named in `kept` to what the shape allows.
Result<Parameters> fit_to_shape(const MethodInfo& method, Parameters parameters, const Given& kept,
                                const LinearLayer& layer)
{
    for (const ShapeLimit& limit : shape_limits(layer)) {
        if (!method.find(limit.name) || kept.contains(limit.name)
            || integer_or(parameters, limit.name, 0) <= limit.limit)
            continue;
        auto lowered = parameters.with(method, limit.name, ParameterValue(std::int64_t{limit.limit}));
        if (!lowered)
            return lowered.error().in(layer.name);
        parameters = std::move(*lowered);
    }
    return parameters;
}

/// The values with a rank that is a share ("10%") as the number of this layer. `layer` null: unknown.
Result<Given> with_resolved_rank(Given values, const LinearLayer* layer)
{
    const auto rank = values.find("rank");
    if (rank == values.end())
        return values;
    const auto* text = std::get_if<std::string>(&rank->second);
    if (!layer && text && text->ends_with('%'))
        return usage_error(fmt::format("rank {} is a share of a layer whose shape is not known here", *text),
                           {}, "Give the rank as a whole number");
    auto resolved = resolved_rank(rank->second, layer ? layer->out : 0, layer ? layer->in : 0);
    if (!resolved)
        return resolved.error();
    rank->second = std::move(*resolved);
    return values;
}

Status check_row(const LayerPlan& row, const LinearLayer& layer)
{
    for (const ShapeLimit& limit : shape_limits(layer)) {
        const std::int64_t value = integer_or(row.parameters, limit.name, 0);
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
    if (const std::int64_t group = integer_or(row.parameters, "group", 0); group < -1)
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

bool matches(std::string_view pattern, std::string_view name)
{
    // Iterative matching with one point of return: linear in practice, never exponential.
    std::size_t p = 0;
    std::size_t n = 0;
    std::size_t star = std::string_view::npos;
    std::size_t restart = 0;
    while (n < name.size()) {
        const bool escaped = p + 1 < pattern.size() && pattern[p] == '\\';
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            restart = n;
        } else if (p < pattern.size()
                   && (escaped ? pattern[p + 1] == name[n] : pattern[p] == '?' || pattern[p] == name[n])) {
            p += escaped ? 2 : 1;
            ++n;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            n = ++restart;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*')
        ++p;
    return p == pattern.size();
}

/// Splits at a character that no backslash precedes; the pieces keep their backslashes.
std::vector<std::string_view> split(std::string_view text, char separator)
{
    std::vector<std::string_view> pieces;
    std::size_t start = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == separator) {
            pieces.push_back(text.substr(start, i - start));
            start = i + 1;
        }
    }
    pieces.push_back(text.substr(start));
    return pieces;
}

std::string escape(std::string_view text, std::string_view special)
{
    std::string result;
    for (const char letter : text) {
        if (letter == '\\' || special.find(letter) != std::string_view::npos)
            result += '\\';
        result += letter;
    }
    return result;
}

std::string unescape(std::string_view text)
{
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 1 < text.size())
            ++i;
        result += text[i];
    }
    return result;
}

struct Setting {
    std::string_view glob;
    std::vector<std::pair<std::string, std::string>> values;
};

Result<Setting> parse_setting(std::string_view text)
{
    const auto refuse = [&](std::string message) {
        return usage_error(std::move(message), fmt::format("--set '{}'", text),
                           "Write GLOB:key=value,key=value, such as '*.down_proj:rank=32,method=odlri'");
    };
    std::size_t colon = 0;
    while (colon < text.size() && text[colon] != ':')
        colon += text[colon] == '\\' ? 2U : 1U;
    if (colon >= text.size() || colon == 0)
        return refuse("there is no layer pattern before a colon");
    Setting setting{text.substr(0, colon), {}};
    for (const std::string_view piece : split(text.substr(colon + 1), ',')) {
        const std::size_t equals = piece.find('=');
        if (equals == std::string_view::npos || equals == 0)
            return refuse(fmt::format("\"{}\" is no key=value", piece));
        std::string key(piece.substr(0, equals));
        for (const auto& [other, value] : setting.values) {
            if (other == key)
                return refuse(fmt::format("\"{}\" is given twice", key));
        }
        setting.values.emplace_back(std::move(key), unescape(piece.substr(equals + 1)));
    }
    return setting;
}

Result<bool> parse_boolean(std::string_view key, std::string_view value)
{
    if (value == "true" || value == "yes" || value == "1")
        return true;
    if (value == "false" || value == "no" || value == "0")
        return false;
    return usage_error(fmt::format("{} must be true or false, not \"{}\"", key, value));
}

/// The row's parameters under another method: those that both have are kept where they are legal there.
Result<Parameters> carry_over(const LayerPlan& row, const MethodInfo& method, const Given& given,
                              const Model* model)
{
    Given values = given;
    for (const auto& [name, value] : row.parameters.values()) {
        if (values.contains(name) || !method.find(name))
            continue;
        if (Parameters::make(method, {{name, value}}))
            values.emplace(name, value);
    }
    auto made = Parameters::make(method, values);
    const LinearLayer* layer = model ? model->find_linear(row.layer) : nullptr;
    if (!made || !layer)
        return made;
    return fit_to_shape(method, std::move(*made), given, *layer);
}

Result<LayerPlan> changed_row(const LayerPlan& row, const Setting& setting, const Model* model)
{
    LayerPlan changed = row;
    Given given;
    for (const auto& [key, value] : setting.values) {
        if (key == "method") {
            changed.method = value;
        } else if (key == "include" || key == "locked") {
            auto parsed = parse_boolean(key, value);
            if (!parsed)
                return parsed.error().in(row.layer);
            (key == "include" ? changed.include : changed.locked) = *parsed;
        } else {
            given.emplace(key, value);
        }
    }
    auto resolved = with_resolved_rank(std::move(given), model ? model->find_linear(row.layer) : nullptr);
    if (!resolved)
        return resolved.error().in(row.layer);
    given = std::move(*resolved);
    auto method = require_method(changed.method);
    if (!method)
        return method.error().in(row.layer);
    const MethodInfo& info = (*method)->info();
    if (changed.method != row.method) {
        auto parameters = carry_over(row, info, given, model);
        if (!parameters)
            return parameters.error().in(row.layer);
        changed.parameters = std::move(*parameters);
        return changed;
    }
    for (const auto& [name, value] : given) {
        auto parameters = changed.parameters.with(info, name, value);
        if (!parameters)
            return parameters.error().in(row.layer);
        changed.parameters = std::move(*parameters);
    }
    if (auto fits = changed.parameters.check(info); !fits)
        return fits.error().in(row.layer);
    return changed;
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
        auto values = with_resolved_rank(given, &layer);
        if (!values)
            return values.error().in("method " + info.id);
        auto parameters = Parameters::make(info, *values);
        if (!parameters)
            return parameters.error().in("method " + info.id);
        // Layers that are left out must be legal too when somebody includes them later.
        auto fitted = fit_to_shape(info, std::move(*parameters), include ? given : Given{}, layer);
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

Status apply_setting(Plan& plan, std::string_view setting, const Model* model)
{
    auto parsed = parse_setting(setting);
    if (!parsed)
        return parsed.error();
    std::vector<LayerPlan> rows = plan.rows;
    bool any = false;
    for (LayerPlan& row : rows) {
        if (!glob_match(parsed->glob, row.layer))
            continue;
        any = true;
        auto changed = changed_row(row, *parsed, model);
        if (!changed)
            return changed.error().in(fmt::format("--set '{}'", setting));
        row = std::move(*changed);
    }
    if (!any)
        return usage_error(fmt::format("no layer of the plan matches \"{}\"", parsed->glob),
                           fmt::format("--set '{}'", setting), "rankscope-cli info lists the layers");
    plan.rows = std::move(rows);
    return {};
}

Result<bool> setting_gives(std::string_view setting, std::string_view layer, std::string_view key)
{
    const auto parsed = parse_setting(setting);
    if (!parsed)
        return parsed.error();
    return glob_match(parsed->glob, layer)
           && std::any_of(parsed->values.begin(), parsed->values.end(),
                          [&](const auto& value) { return value.first == key; });
}

std::string setting_text(const LayerPlan& row)
{
    std::string text = escape(row.layer, "*?:,") + ":method=" + escape(row.method, ",") + ",include="
                       + (row.include ? "true" : "false") + ",locked=" + (row.locked ? "true" : "false");
    for (const auto& [name, value] : row.parameters.values())
        text += "," + name + "=" + escape(to_string(value), ",");
    return text;
}

bool glob_match(std::string_view pattern, std::string_view name) { return matches(pattern, name); }

bool glob_match_any(std::string_view patterns, std::string_view name)
{
    for (const std::string_view pattern : split(patterns, ',')) {
        const auto first = pattern.find_first_not_of(' ');
        if (first != std::string_view::npos
            && matches(pattern.substr(first, pattern.find_last_not_of(' ') - first + 1), name))
            return true;
    }
    return false;
}

double planned_bits_per_weight(const LayerPlan& row, const LinearLayer& layer)
{
    UniformGrid grid;
    grid.bits = static_cast<int>(integer_or(row.parameters, "bits", grid.bits));
    grid.group = integer_or(row.parameters, "group", grid.group);
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
        factor_storage_bits(layer.out, layer.in, integer_or(row.parameters, "rank", 0), factors) + signs;
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
