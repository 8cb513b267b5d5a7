// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/report.h"

#include "app/cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace rankscope::cli {

RunSummary summarize(const Run& run, const Model& model)
{
    RunSummary summary;
    std::set<std::string> methods;
    double weights = 0.0;
    double bits = 0.0;
    for (const LayerPlan& row : run.plan().rows)
        summary.included += row.include ? 1 : 0;
    for (const LayerResult& result : run.results()) {
        const LinearLayer* layer = model.find_linear(result.layer);
        if (!layer)
            continue;
        const double count = static_cast<double>(layer->out * layer->in);
        ++summary.layers;
        weights += count;
        bits += result.bits_per_weight * count;
        summary.compressed_bytes +=
            static_cast<std::uint64_t>(std::ceil(result.bits_per_weight * count / 8.0));
        if (const TensorInfo* tensor = model.checkpoint().find(layer->weight()))
            summary.original_bytes += tensor->bytes;
        summary.mean_activation_error += result.quality.relative_activation_error;
        summary.worst_activation_error =
            std::max(summary.worst_activation_error, result.quality.relative_activation_error);
        summary.seconds += result.seconds;
        methods.insert(result.method);
    }
    if (summary.layers > 0) {
        summary.bits_per_weight = bits / weights;
        summary.mean_activation_error /= static_cast<double>(summary.layers);
    }
    summary.methods = fmt::format("{}", fmt::join(methods, "+"));
    return summary;
}

Json to_json(const RunSummary& summary)
{
    Json json;
    json.set("methods", summary.methods);
    json.set("layers_done", static_cast<std::uint64_t>(summary.layers));
    json.set("layers_included", static_cast<std::uint64_t>(summary.included));
    json.set("bits_per_weight", summary.bits_per_weight);
    json.set("original_bytes", summary.original_bytes);
    json.set("compressed_bytes", summary.compressed_bytes);
    json.set("mean_relative_activation_error", summary.mean_activation_error);
    json.set("worst_relative_activation_error", summary.worst_activation_error);
    json.set("layer_seconds", summary.seconds);
    return json;
}

Json to_json(const LayerResult& result)
{
    Json json;
    json.set("layer", result.layer);
    json.set("method", result.method);
    json.set("parameters", result.parameters);
    json.set("seconds", result.seconds);
    json.set("bits_per_weight", result.bits_per_weight);
    json.set("quantization_scale", result.quantization_scale);
    json.set("relative_error", result.quality.relative_error);
    json.set("relative_activation_error", result.quality.relative_activation_error);
    json.set("ratio_qx", result.quality.ratio_qx);
    json.set("ratio_lrx", result.quality.ratio_lrx);
    json.set("backend", result.backend);
    return json;
}

Json to_json(const PerplexityResult& result)
{
    Json json;
    json.set("protocol", id(result.protocol));
    json.set("length", std::int64_t{result.length});
    json.set("stride", std::int64_t{result.stride});
    json.set("windows", std::int64_t{result.windows});
    json.set("targets", result.targets);
    json.set("nll_sum", result.nll_sum);
    json.set("perplexity", result.perplexity);
    json.set("standard_error", result.standard_error);
    json.set("words", result.words);
    json.set("word_perplexity", result.word_perplexity());
    json.set("seconds", result.seconds);
    json.set("text_file", result.text_file);
    json.set("text_hash", result.text_hash);
    return json;
}

Json to_json(const Divergence& divergence)
{
    Json json;
    json.set("mean_kl", divergence.mean_kl);
    json.set("mean_kl_standard_error", divergence.standard_error);
    json.set("kl_99", divergence.kl_99);
    json.set("same_top", divergence.same_top);
    return json;
}

Json to_json(const ChoiceResult& result)
{
    const auto share = [](const Accuracy& accuracy) {
        Json json;
        json.set("value", accuracy.value);
        json.set("standard_error", accuracy.standard_error);
        return json;
    };
    Json json;
    json.set("task", result.task);
    json.set("file_hash", result.file_hash);
    json.set("questions", static_cast<std::int64_t>(result.items));
    json.set("acc", share(result.accuracy));
    json.set("acc_norm", share(result.per_character));
    json.set("acc_bytes", share(result.per_byte));
    json.set("headline", result.normalized ? "acc_norm" : "acc");
    json.set("truncated", static_cast<std::int64_t>(result.truncated));
    json.set("seconds", result.seconds);
    return json;
}

std::string layer_table(const std::vector<LayerResult>& results)
{
    Table table(
        {"layer", "method", "bits/weight", "error", "activation error", "Q scale", "seconds", "device"});
    for (const LayerResult& result : results)
        table.add({result.layer, result.method, figure(result.bits_per_weight),
                   figure(result.quality.relative_error), figure(result.quality.relative_activation_error),
                   figure(result.quantization_scale), figure(result.seconds), result.backend});
    return table.text();
}

std::string describe(const PerplexityResult& result)
{
    return fmt::format("{} ± {} ({} protocol, {} windows of {} tokens)", figure(result.perplexity),
                       figure(result.standard_error), id(result.protocol), result.windows, result.length);
}

} // namespace rankscope::cli
