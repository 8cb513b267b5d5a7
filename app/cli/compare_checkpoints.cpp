// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/compare_checkpoints.h"

#include "app/cli/report.h"
#include "app/cli/table.h"
#include "core/base/byte_size.h"
#include "core/evaluate/weight_comparison.h"

namespace rankscope::cli {
namespace {

struct Checkpoint {
    std::filesystem::path path;
    std::shared_ptr<const Model> model;
    WeightComparison weights; ///< against the original; of the original itself: no error
    std::optional<PerplexityResult> perplexity;
};

Json to_json(const Checkpoint& checkpoint)
{
    Json layers(Json::Array{});
    for (const LayerDifference& layer : checkpoint.weights.layers) {
        Json json;
        json.set("layer", layer.layer);
        json.set("dtype", layer.type);
        json.set("bits_per_weight", layer.bits_per_weight);
        json.set("relative_error", layer.relative_error);
        json.set("max_difference", layer.max_difference);
        layers.push_back(std::move(json));
    }
    Json json;
    json.set("path", checkpoint.path.string());
    json.set("bytes", checkpoint.weights.bytes);
    json.set("bits_per_weight", checkpoint.weights.bits_per_weight);
    json.set("relative_error", checkpoint.weights.relative_error);
    json.set("perplexity", checkpoint.perplexity ? cli::to_json(*checkpoint.perplexity) : Json());
    json.set("layers", std::move(layers));
    return json;
}

Result<Checkpoint> open_checkpoint(const std::filesystem::path& path,
                                   const std::shared_ptr<const Model>& original,
                                   const std::filesystem::path& text, Session& session)
{
    auto model = Model::open(path);
    if (!model)
        return model.error();
    session.monitor().set_detail(path.string());
    auto weights = compare_weights(original ? *original : **model, **model, session.monitor());
    if (!weights)
        return weights.error();
    Checkpoint checkpoint{path, *model, std::move(*weights), std::nullopt};
    if (!text.empty()) {
        auto backend = session.backend();
        if (!backend)
            return backend.error();
        const auto source = checkpoint_weights(*model);
        auto result = perplexity(*model, *source, text, {}, **backend, session.monitor());
        if (!result)
            return result.error();
        checkpoint.perplexity = std::move(*result);
    }
    return checkpoint;
}

std::string summary_table(const std::vector<Checkpoint>& checkpoints)
{
    Table table({"checkpoint", "bits/weight", "layers' size", "relative error", "perplexity"});
    for (const Checkpoint& checkpoint : checkpoints)
        table.add(
            {checkpoint.path.string(), figure(checkpoint.weights.bits_per_weight),
             format_byte_size(checkpoint.weights.bytes),
             &checkpoint == &checkpoints.front() ? "original" : figure(checkpoint.weights.relative_error),
             checkpoint.perplexity ? figure(checkpoint.perplexity->perplexity) : "–"});
    return table.text();
}

std::string layer_error_table(const std::vector<Checkpoint>& checkpoints)
{
    std::vector<std::string> header = {"relative error of"};
    for (std::size_t i = 1; i < checkpoints.size(); ++i) {
        header.push_back("stored as");
        header.push_back(checkpoints[i].path.filename().string());
    }
    Table table(header);
    const auto& layers = checkpoints.front().weights.layers;
    for (std::size_t row = 0; row < layers.size(); ++row) {
        std::vector<std::string> cells = {layers[row].layer};
        for (std::size_t i = 1; i < checkpoints.size(); ++i) {
            cells.push_back(checkpoints[i].weights.layers[row].type);
            cells.push_back(figure(checkpoints[i].weights.layers[row].relative_error));
        }
        table.add(std::move(cells));
    }
    return table.text();
}

} // namespace

Result<Output> compare_checkpoints(const std::vector<std::filesystem::path>& paths,
                                   const std::filesystem::path& text, Session& session)
{
    if (paths.size() < 2)
        return usage_error("one checkpoint alone has nothing to be compared with", paths.front().string(),
                           "Give the original first and then what was made of it");
    std::vector<Checkpoint> checkpoints;
    std::shared_ptr<const Model> original;
    Json list(Json::Array{});
    for (const auto& path : paths) {
        auto checkpoint = open_checkpoint(path, original, text, session);
        if (!checkpoint)
            return checkpoint.error();
        if (!original)
            original = checkpoint->model;
        list.push_back(to_json(*checkpoint));
        checkpoints.push_back(std::move(*checkpoint));
    }
    Output output;
    output.document.set("checkpoints", std::move(list));
    output.document.set("process", session.process());
    output.text = summary_table(checkpoints) + "\n" + layer_error_table(checkpoints);
    return output;
}

} // namespace rankscope::cli
