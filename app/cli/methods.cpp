// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/methods/method.h"

#include <fmt/format.h>

namespace rankscope::cli {
namespace {

std::string_view type_name(ParameterType type)
{
    switch (type) {
    case ParameterType::Flag:
        return "flag";
    case ParameterType::Integer:
        return "integer";
    case ParameterType::Real:
        return "real";
    case ParameterType::Choice:
        return "choice";
    }
    return "";
}

bool has_range(const ParameterInfo& parameter)
{
    return parameter.type == ParameterType::Integer || parameter.type == ParameterType::Real;
}

Json parameter_json(const ParameterInfo& parameter)
{
    Json json;
    json.set("name", parameter.name);
    json.set("title", parameter.title);
    json.set("type", type_name(parameter.type));
    json.set("default", to_json(parameter.fallback));
    if (has_range(parameter)) {
        json.set("minimum", parameter.minimum);
        json.set("maximum", parameter.maximum);
    }
    if (parameter.type == ParameterType::Choice) {
        Json choices(Json::Array{});
        for (const std::string& choice : parameter.choices)
            choices.push_back(choice);
        json.set("choices", std::move(choices));
    }
    json.set("unit", parameter.unit);
    json.set("help", parameter.help);
    return json;
}

Json method_json(const MethodInfo& info)
{
    Json parameters(Json::Array{});
    for (const ParameterInfo& parameter : info.parameters)
        parameters.push_back(parameter_json(parameter));
    Json json;
    json.set("id", info.id);
    json.set("title", info.title);
    json.set("summary", info.summary);
    json.set("source", info.source);
    json.set("needs_calibration", info.needs.hessian);
    json.set("needs_quantized_activations", info.needs.quantized_activations);
    json.set("has_low_rank", info.has_low_rank);
    json.set("parameters", std::move(parameters));
    return json;
}

/// "2 … 8", "0 … 1", "full, restricted".
std::string range_text(const ParameterInfo& parameter)
{
    if (parameter.type == ParameterType::Integer)
        return fmt::format("{:.0f} … {:.0f}", parameter.minimum, parameter.maximum);
    if (parameter.type == ParameterType::Real)
        return fmt::format("{:g} … {:g}", parameter.minimum, parameter.maximum);
    return fmt::format("{}", fmt::join(parameter.choices, ", "));
}

std::string calibration_text(const MethodInfo& info)
{
    return info.needs.quantized_activations ? "calibration with --quantized-activations" : "calibration";
}

/// One section of docs/methods.md.
std::string method_markdown(const MethodInfo& info)
{
    std::string text =
        fmt::format("### {} (`{}`)\n\n{}\nSource: {}.{}\n\n", info.title, info.id, info.summary, info.source,
                    info.needs.hessian ? " Needs a " + calibration_text(info) + "." : "");
    text += "| parameter | default | range | meaning |\n| --- | --- | --- | --- |\n";
    for (const ParameterInfo& parameter : info.parameters)
        text += fmt::format("| `{}` | {} | {} | {} |\n", parameter.name, to_string(parameter.fallback),
                            range_text(parameter), parameter.help);
    return text + "\n";
}

std::string method_text(const MethodInfo& info)
{
    std::string text =
        fmt::format("{}: {}\n  {}\n  Source: {}{}\n", info.id, info.title, info.summary, info.source,
                    info.needs.hessian ? "; needs a " + calibration_text(info) : "");
    Table table({"  parameter", "type", "range", "default", "meaning"});
    for (const ParameterInfo& parameter : info.parameters) {
        table.add({"  " + parameter.name, std::string(type_name(parameter.type)), range_text(parameter),
                   to_string(parameter.fallback), parameter.help});
    }
    return text + table.text() + "\n";
}

Output list_methods(bool markdown)
{
    Json list(Json::Array{});
    Output output;
    for (const Method* method : methods()) {
        list.push_back(method_json(method->info()));
        output.text += markdown ? method_markdown(method->info()) : method_text(method->info());
    }
    output.document.set("methods", std::move(list));
    return output;
}

} // namespace

void add_methods(Program& program)
{
    auto markdown = std::make_shared<bool>(false);
    CLI::App* command =
        program.add("methods", "The methods with their parameters, ranges, defaults and sources",
                    [markdown](Session&) -> Result<Output> { return list_methods(*markdown); });
    command->add_flag("--markdown", *markdown, "As the tables of docs/methods.md");
}

} // namespace rankscope::cli
