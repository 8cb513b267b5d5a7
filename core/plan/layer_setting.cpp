// SPDX-License-Identifier: GPL-3.0-or-later
//
// Layer patterns, and settings of the form GLOB:key=value,key=value.
#include "core/methods/method.h"
#include "core/plan/detail/plan_row.h"

#include <fmt/format.h>

#include <algorithm>

namespace rankscope {
namespace {

using detail::Given;

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
    return detail::fit_to_shape(method, std::move(*made), given, *layer);
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
    auto resolved =
        detail::with_resolved_rank(std::move(given), model ? model->find_linear(row.layer) : nullptr);
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

} // namespace rankscope
