// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/compare_checkpoints.h"
#include "app/cli/options.h"
#include "app/cli/report.h"
#include "app/cli/session.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace rankscope::cli {
namespace {

struct CompareOptions {
    std::vector<std::filesystem::path> paths;
    std::filesystem::path text;
};

struct Entry {
    std::filesystem::path path;
    std::shared_ptr<const Run> run;
    std::shared_ptr<const Model> model;
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
    Entry entry{path, *run, *model, summarize(**run, **model), std::nullopt};
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

/// Each layer's activation error in every run, in the order of the first model.
std::string error_table(const std::vector<Entry>& entries)
{
    std::vector<std::string> header = {"activation error of"};
    for (const Entry& entry : entries)
        header.push_back(entry.path.filename().string());
    Table table(header);
    std::set<std::string> seen;
    for (const Entry& source : entries) {
        for (const LayerResult& layer : source.run->results()) {
            if (!seen.insert(layer.layer).second)
                continue;
            std::vector<std::string> row = {layer.layer};
            for (const Entry& entry : entries) {
                std::string cell = "–";
                for (const LayerResult& result : entry.run->results()) {
                    if (result.layer == layer.layer)
                        cell = figure(result.quality.relative_activation_error);
                }
                row.push_back(cell);
            }
            table.add(std::move(row));
        }
    }
    return table.text();
}

Result<Output> compare_runs(const CompareOptions& options, Session& session)
{
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
        for (const LayerResult& result : entry.run->results())
            layers.push_back(to_json(result));
        Json json = to_json(entry.summary);
        json.set("path", entry.path.string());
        json.set("perplexity", entry.perplexity ? to_json(*entry.perplexity) : Json());
        json.set("layers", std::move(layers));
        list.push_back(std::move(json));
        table.add({entry.path.string(), entry.summary.methods,
                   fmt::format("{}/{}", entry.summary.layers, entry.summary.included),
                   figure(entry.summary.bits_per_weight), format_byte_size(entry.summary.compressed_bytes),
                   figure(entry.summary.mean_activation_error),
                   entry.perplexity ? figure(entry.perplexity->perplexity) : "–"});
    }
    Output output;
    output.document.set("runs", std::move(list));
    output.document.set("process", session.process());
    output.text = table.text() + "\n" + error_table(entries);
    return output;
}

Result<Output> compare(const CompareOptions& options, Session& session)
{
    if (std::none_of(options.paths.begin(), options.paths.end(), Run::is_run))
        return compare_checkpoints(options.paths, options.text, session);
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
}

} // namespace rankscope::cli
