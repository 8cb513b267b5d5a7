// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/method_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cmath>

namespace rankscope {
namespace {

std::string shortest(double value)
{
    char text[64];
    const auto end = std::to_chars(text, text + sizeof text, value).ptr;
    return {text, end};
}

std::string join(const std::vector<std::string>& words)
{
    std::string text;
    for (const std::string& word : words)
        text += (text.empty() ? "" : ", ") + word;
    return text;
}

std::string in_range(const ParameterInfo& info)
{
    return fmt::format("{} … {}{}{}", shortest(info.minimum), shortest(info.maximum),
                       info.unit.empty() ? "" : " ", info.unit);
}

Error refusal(const MethodInfo& method, const ParameterInfo& info, const ParameterValue& given)
{
    std::string expected;
    switch (info.type) {
    case ParameterType::Flag:
        expected = "true or false";
        break;
    case ParameterType::Integer:
        expected = "a whole number in " + in_range(info);
        break;
    case ParameterType::Real:
        expected = "a number in " + in_range(info);
        break;
    case ParameterType::Choice:
        expected = "one of " + join(info.choices);
        break;
    }
    return usage_error(fmt::format("parameter {} of {} cannot be '{}': expected {}", info.name, method.id,
                                   to_string(given), expected));
}

template <class T>
std::optional<T> parse(const std::string& text)
{
    T value{};
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc{} || end != text.data() + text.size())
        return std::nullopt;
    return value;
}

std::optional<bool> as_flag(const ParameterValue& given)
{
    if (const auto* value = std::get_if<bool>(&given))
        return *value;
    if (const auto* value = std::get_if<std::string>(&given)) {
        if (*value == "true" || *value == "1")
            return true;
        if (*value == "false" || *value == "0")
            return false;
    }
    return std::nullopt;
}

std::optional<std::int64_t> as_integer(const ParameterValue& given)
{
    if (const auto* value = std::get_if<std::int64_t>(&given))
        return *value;
    if (const auto* value = std::get_if<std::string>(&given))
        return parse<std::int64_t>(*value);
    if (const auto* value = std::get_if<double>(&given);
        value && std::nearbyint(*value) == *value && std::abs(*value) < 9e15)
        return static_cast<std::int64_t>(*value);
    return std::nullopt;
}

std::optional<double> as_real(const ParameterValue& given)
{
    if (const auto* value = std::get_if<double>(&given))
        return *value;
    if (const auto* value = std::get_if<std::int64_t>(&given))
        return static_cast<double>(*value);
    if (const auto* value = std::get_if<std::string>(&given))
        return parse<double>(*value);
    return std::nullopt;
}

/// The value in the parameter's own type, or nothing when it is of another type or out of range.
std::optional<ParameterValue> accept(const ParameterInfo& info, const ParameterValue& given)
{
    const auto inside = [&](double value) { return value >= info.minimum && value <= info.maximum; };
    switch (info.type) {
    case ParameterType::Flag:
        if (const auto value = as_flag(given))
            return *value;
        break;
    case ParameterType::Integer:
        if (const auto value = as_integer(given); value && inside(static_cast<double>(*value)))
            return *value;
        break;
    case ParameterType::Real:
        if (const auto value = as_real(given); value && inside(*value))
            return *value;
        break;
    case ParameterType::Choice:
        if (const auto* value = std::get_if<std::string>(&given);
            value && std::find(info.choices.begin(), info.choices.end(), *value) != info.choices.end())
            return *value;
        break;
    }
    return std::nullopt;
}

Error unknown_parameter(const MethodInfo& method, std::string_view name)
{
    std::vector<std::string> known;
    for (const ParameterInfo& info : method.parameters)
        known.push_back(info.name);
    return usage_error(
        fmt::format("method {} has no parameter '{}'; it has {}", method.id, name, join(known)));
}

template <class T>
const T& stored(const std::map<std::string, ParameterValue, std::less<>>& values, std::string_view name)
{
    static const T missing{};
    const auto found = values.find(name);
    const T* value = found == values.end() ? nullptr : std::get_if<T>(&found->second);
    assert(value);
    return value ? *value : missing;
}

} // namespace

std::string to_string(const ParameterValue& value)
{
    if (const auto* flag = std::get_if<bool>(&value))
        return *flag ? "true" : "false";
    if (const auto* integer = std::get_if<std::int64_t>(&value))
        return std::to_string(*integer);
    if (const auto* real = std::get_if<double>(&value))
        return shortest(*real);
    return std::get<std::string>(value);
}

Json to_json(const ParameterValue& value)
{
    return std::visit([](const auto& content) { return Json(content); }, value);
}

const ParameterInfo* MethodInfo::find(std::string_view name) const
{
    const auto found = std::find_if(parameters.begin(), parameters.end(),
                                    [&](const auto& info) { return info.name == name; });
    return found == parameters.end() ? nullptr : &*found;
}

std::int64_t Parameters::integer(std::string_view name) const { return stored<std::int64_t>(values_, name); }
double Parameters::real(std::string_view name) const { return stored<double>(values_, name); }
bool Parameters::flag(std::string_view name) const { return stored<bool>(values_, name); }
const std::string& Parameters::text(std::string_view name) const
{
    return stored<std::string>(values_, name);
}

Result<Parameters> Parameters::make(const MethodInfo& method,
                                    const std::map<std::string, ParameterValue, std::less<>>& given)
{
    Parameters result;
    for (const ParameterInfo& info : method.parameters)
        result.values_[info.name] = info.fallback;
    for (const auto& [name, value] : given) {
        auto changed = result.with(method, name, value);
        if (!changed)
            return changed.error();
        result = std::move(*changed);
    }
    if (auto fits = result.check(method); !fits)
        return fits.error();
    return result;
}

Status Parameters::check(const MethodInfo& method) const
{
    return method.check ? method.check(*this) : Status{};
}

Result<Parameters> Parameters::with(const MethodInfo& method, std::string_view name,
                                    const ParameterValue& value) const
{
    const ParameterInfo* info = method.find(name);
    if (!info)
        return unknown_parameter(method, name);
    auto accepted = accept(*info, value);
    if (!accepted)
        return refusal(method, *info, value);
    Parameters copy = *this;
    copy.values_[info->name] = std::move(*accepted);
    return copy;
}

Json Parameters::to_json() const
{
    Json object{Json::Object{}};
    for (const auto& [name, value] : values_)
        object.set(name, rankscope::to_json(value));
    return object;
}

Result<Parameters> Parameters::from_json(const MethodInfo& method, const Json& object)
{
    const Json::Object* members = object.object_if();
    if (!members)
        return bad_input(fmt::format("the parameters of {} are not a JSON object", method.id));
    std::map<std::string, ParameterValue, std::less<>> given;
    for (const auto& [name, value] : *members) {
        if (value.is_bool())
            given[name] = value.boolean();
        else if (value.is_integer())
            given[name] = value.integer();
        else if (value.is_number())
            given[name] = value.number();
        else if (const std::string* text = value.string_if())
            given[name] = *text;
        else
            return bad_input(fmt::format(
                "parameter {} of {} is neither a number nor a text nor true or false", name, method.id));
    }
    return make(method, given);
}

} // namespace rankscope
