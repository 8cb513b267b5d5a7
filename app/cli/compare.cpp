// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/compare_checkpoints.h"
#include "app/cli/options.h"
#include "app/cli/report.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/evaluate/evaluation_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace rankscope::cli {
namespace {

struct CompareOptions {
    std::vector<std::filesystem::path> paths;
    std::filesystem::path text;
    std::string format = "text";
    bool differences = false;
};

struct Entry {
    std::filesystem::path path;
    std::shared_ptr<const Run> run;
    std::shared_ptr<const Model> model;
    std::vector<LayerResult> results;
    RunSummary summary;
    std::optional<PerplexityResult> perplexity;
};

Result<Entry> open_entry(const std::filesystem::path& path, const CompareOptions& options, Session& session)
{
    auto run = Run::open(path);
    if (!run)
        return run.error();
    auto model = (*run)->model();
    if (!model)
        return model.error();
    Entry entry{path, *run, *model, (*run)->results(), summarize(**run, **model), std::nullopt};
    if (!options.text.empty()) {
        auto backend = session.backend();
        if (!backend)
            return backend.error();
        session.monitor().set_detail(path.string());
        const auto weights = run_weights(*model, *run);
        auto result = perplexity(*model, *weights, options.text, {}, **backend, session.monitor());
        if (!result)
            return result.error();
        entry.perplexity = std::move(*result);
    }
    return entry;
}

const LayerResult* find(const Entry& entry, const std::string& layer)
{
    for (const LayerResult& result : entry.results) {
        if (result.layer == layer)
            return &result;
    }
    return nullptr;
}

/// Names of all layers, in the order of the first run that has them.
std::vector<std::string> layers_of(const std::vector<Entry>& entries)
{
    std::vector<std::string> names;
    std::set<std::string> seen;
    for (const Entry& entry : entries) {
        for (const LayerResult& result : entry.results) {
            if (seen.insert(result.layer).second)
                names.push_back(result.layer);
        }
    }
    return names;
}

std::string error_cell(const LayerResult* result)
{
    return result ? figure(result->quality.relative_activation_error) : "–";
}

/// Each layer's activation error in every run.
Table error_table(const std::vector<Entry>& entries)
{
    std::vector<std::string> header = {"activation error of"};
    for (const Entry& entry : entries)
        header.push_back(entry.path.filename().string());
    Table table(header);
    for (const std::string& layer : layers_of(entries)) {
        std::vector<std::string> row = {layer};
        for (const Entry& entry : entries)
            row.push_back(error_cell(find(entry, layer)));
        table.add(std::move(row));
    }
    return table;
}

/// "method" and the parameters of one layer, as text.
std::map<std::string, std::string> settings_of(const LayerResult& result)
{
    std::map<std::string, std::string> settings{{"method", result.method}};
    if (const Json::Object* parameters = result.parameters.object_if()) {
        for (const auto& [name, value] : *parameters)
            settings[name] = value.is_string() ? value.string() : value.dump();
    }
    return settings;
}

/// What the runs do to this layer as far as they do not all do the same; a text for each run.
std::vector<std::string> differing_settings(const std::vector<const LayerResult*>& results)
{
    std::vector<std::map<std::string, std::string>> all;
    std::set<std::string> names;
    for (const LayerResult* result : results) {
        all.push_back(result ? settings_of(*result) : std::map<std::string, std::string>());
        for (const auto& [name, value] : all.back())
            names.insert(name);
    }
    std::vector<std::string> texts(results.size());
    for (const std::string& name : names) {
        const auto value = [&](std::size_t i) {
            const auto found = all[i].find(name);
            return found == all[i].end() ? std::string() : found->second;
        };
        bool same = true;
        for (std::size_t i = 1; i < all.size(); ++i)
            same = same && value(i) == value(0);
        for (std::size_t i = 0; i < all.size() && !same; ++i) {
            if (all[i].contains(name))
                texts[i] += (texts[i].empty() ? "" : ", ") + name + "=" + value(i);
        }
    }
    return texts;
}

/// Only layers of which not all runs say the same, and of their settings only those that differ.
Table difference_table(const std::vector<Entry>& entries)
{
    std::vector<std::string> header = {"layer"};
    for (const Entry& entry : entries) {
        header.push_back(entry.path.filename().string());
        header.push_back("error");
    }
    Table table(header);
    for (const std::string& layer : layers_of(entries)) {
        std::vector<const LayerResult*> results;
        for (const Entry& entry : entries)
            results.push_back(find(entry, layer));
        const std::vector<std::string> settings = differing_settings(results);
        const auto error = [](const LayerResult* result) {
            return result ? result->quality.relative_activation_error : -1.0;
        };
        bool same = true;
        for (std::size_t i = 0; i < results.size(); ++i)
            same = same && settings[i].empty() && error(results[i]) == error(results[0]);
        if (same)
            continue;
        std::vector<std::string> row = {layer};
        for (std::size_t i = 0; i < results.size(); ++i) {
            row.push_back(!results[i] ? "(not in it)" : settings[i].empty() ? "–" : settings[i]);
            row.push_back(error_cell(results[i]));
        }
        table.add(std::move(row));
    }
    return table;
}

/// The perplexity measured now, or else those that `evaluate` kept beside the run.
std::string perplexity_cell(const Entry& entry)
{
    if (entry.perplexity)
        return figure(entry.perplexity->perplexity);
    const auto recorded = recorded_evaluations(entry.path);
    std::string cell;
    if (recorded) {
        for (const Json& evaluation : *recorded)
            cell += fmt::format("{}{} ({} of {} tokens)", cell.empty() ? "" : "; ",
                                figure(evaluation["perplexity"].number()), evaluation["protocol"].string(),
                                evaluation["length"].integer());
    }
    return cell.empty() ? "–" : cell;
}

Result<Output> compare_runs(const CompareOptions& options, Session& session)
{
    const auto format = table_format(options.format);
    if (!format)
        return format.error();
    std::vector<Entry> entries;
    for (const auto& path : options.paths) {
        auto entry = open_entry(path, options, session);
        if (!entry)
            return entry.error();
        entries.push_back(std::move(*entry));
    }
    Json list(Json::Array{});
    Table table({"run", "methods", "layers", "bits/weight", "size", "activation error", "perplexity"});
    for (const Entry& entry : entries) {
        Json layers(Json::Array{});
        for (const LayerResult& result : entry.results)
            layers.push_back(to_json(result));
        Json json = to_json(entry.summary);
        json.set("path", entry.path.string());
        json.set("perplexity", entry.perplexity ? to_json(*entry.perplexity) : Json());
        json.set("layers", std::move(layers));
        list.push_back(std::move(json));
        table.add({entry.path.string(), entry.summary.methods,
                   fmt::format("{}/{}", entry.summary.layers, entry.summary.included),
                   figure(entry.summary.bits_per_weight), format_byte_size(entry.summary.compressed_bytes),
                   figure(entry.summary.mean_activation_error), perplexity_cell(entry)});
    }
    Output output;
    output.document.set("runs", std::move(list));
    output.document.set("process", session.process());
    const Table layers = options.differences ? difference_table(entries) : error_table(entries);
    output.text =
        table.in(*format) + "\n"
        + (layers.empty() ? std::string("The runs do not differ in any layer.\n") : layers.in(*format));
    return output;
}

Result<Output> compare(const CompareOptions& options, Session& session)
{
    if (std::none_of(options.paths.begin(), options.paths.end(), Run::is_run)) {
        if (options.differences || options.format != "text")
            return usage_error("--differences and --format are for runs, and these are checkpoints",
                               options.paths.front().string(), "Leave them out");
        return compare_checkpoints(options.paths, options.text, session);
    }
    for (const auto& path : options.paths) {
        std::error_code problem;
        if (!Run::is_run(path) && std::filesystem::exists(path, problem))
            return usage_error("this is no run, and runs cannot be compared with checkpoints", path.string(),
                               "Export the run (hf or hf-qlr) and compare that with the checkpoint");
    }
    return compare_runs(options, session);
}

} // namespace

void add_compare(Program& program)
{
    auto options = std::make_shared<CompareOptions>();
    CLI::App* command = program.add(
        "compare",
        "Runs side by side, or checkpoints against the first: size, bits per weight, error of each layer",
        [options](Session& session) { return compare(*options, session); });
    command->add_option("PATH", options->paths, "Run folders; or checkpoints, the original first")
        ->required();
    command->add_option("--text", options->text, "Text file: measure each one's perplexity too")
        ->type_name("FILE");
    command->add_flag("--differences", options->differences,
                      "Only layers of which the runs do not all say the same, and what differs");
    command->add_option("--format", options->format, "text, csv, markdown or latex (tables for booktabs)")
        ->type_name("F");
}

} // namespace rankscope::cli
