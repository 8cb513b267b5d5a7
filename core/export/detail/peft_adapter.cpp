// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names, shapes and keys as PEFT 0.21 writes and reads them: lora_A is R (rank × in), lora_B is L (out ×
// rank), and alpha = rank makes the scale 1.
#include "core/export/detail/peft_adapter.h"

#include "core/base/atomic_file.h"
#include "core/export/detail/stored_floats.h"

#include <algorithm>
#include <filesystem>
#include <map>

namespace rankscope::export_common {
namespace {

namespace fs = std::filesystem;

constexpr char k_config_file[] = "adapter_config.json";
constexpr char k_weights_file[] = "adapter_model.safetensors";
constexpr std::uint64_t k_header_bytes_per_layer = 512;

/// One layer of the adapter.
struct Pair {
    const LinearLayer* layer = nullptr;
    std::string module; ///< its name in transformers
    Index rank = 0;
    DType left = DType::F16;
    DType right = DType::F16;

    std::string lora_a() const { return "base_model.model." + module + ".lora_A.weight"; }
    std::string lora_b() const { return "base_model.model." + module + ".lora_B.weight"; }
};

/// A checkpoint may leave out the prefix of its names; transformers' modules always have it.
Result<std::map<std::string, std::string>> module_names(const Model& model)
{
    auto usual = architecture_for(model.config());
    if (!usual)
        return usual.error();
    const std::vector<LinearLayer> modules = (*usual)->linears(model.config());
    std::map<std::string, std::string> names;
    for (std::size_t i = 0; i < modules.size() && i < model.linears().size(); ++i)
        names[model.linears()[i].name] = modules[i].name;
    return names;
}

Result<std::vector<Pair>> find_pairs(const ExportJob& job)
{
    auto names = module_names(job.model);
    if (!names)
        return names.error();
    const auto layers = replaced_layers(job.run, job.model);
    ExportProgress progress(job.monitor, layers.size());
    std::vector<Pair> pairs;
    for (const LinearLayer* layer : layers) {
        progress.step("laying out " + layer->name);
        auto decomposition = job.run.decomposition(layer->name);
        if (!decomposition)
            return decomposition.error();
        if (decomposition->low_rank.rank() == 0)
            continue;
        const LowRank factors = weight_factors(*decomposition);
        if (factors.left.rows() != layer->out || factors.right.cols() != layer->in
            || !factors.left.allFinite() || !factors.right.allFinite())
            return bad_input("its factors do not have the layer's shape or are not finite", layer->name,
                             "Compute the layer again");
        pairs.push_back({layer, (*names)[layer->name], factors.rank(), factor_type(factors.left),
                         factor_type(factors.right)});
    }
    return pairs;
}

/// The rank of most layers: the others are exceptions in rank_pattern.
Index usual_rank(const std::vector<Pair>& pairs)
{
    std::map<Index, std::size_t> counts;
    for (const Pair& pair : pairs)
        ++counts[pair.rank];
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == counts.end() ? 0 : most->first;
}

Json adapter_config(const std::vector<Pair>& pairs)
{
    const Index usual = usual_rank(pairs);
    Json::Array modules;
    Json::Object exceptions;
    bool conv1d = false;
    for (const Pair& pair : pairs) {
        modules.emplace_back(pair.module);
        conv1d = conv1d || pair.layer->transposed;
        if (pair.rank != usual)
            exceptions.emplace(pair.module, Json(std::int64_t{pair.rank}));
    }
    Json config;
    config.set("peft_type", "LORA");
    config.set("task_type", "CAUSAL_LM");
    config.set("base_model_name_or_path", "..");
    config.set("inference_mode", true);
    config.set("r", std::int64_t{usual});
    config.set("lora_alpha", std::int64_t{usual});
    config.set("rank_pattern", exceptions);
    config.set("alpha_pattern", std::move(exceptions));
    config.set("target_modules", std::move(modules));
    config.set("fan_in_fan_out", conv1d);
    config.set("bias", "none");
    config.set("lora_dropout", 0.0);
    config.set("use_rslora", false);
    config.set("use_dora", false);
    return config;
}

std::vector<TensorSource> adapter_tensors(const ExportJob& job, const std::vector<Pair>& pairs)
{
    const LayerCache cache(job.run);
    std::vector<TensorSource> sources;
    for (const Pair& pair : pairs) {
        const auto factor = [cache, name = pair.layer->name](DType dtype, Matrix LowRank::*which) {
            return [cache, name, dtype, which]() -> Result<std::vector<std::byte>> {
                auto decomposition = cache.get(name);
                if (!decomposition)
                    return decomposition.error();
                return float_bytes(dtype, weight_factors(**decomposition).*which);
            };
        };
        const std::int64_t rank = pair.rank;
        sources.push_back(
            {pair.lora_a(), pair.right, {rank, pair.layer->in}, factor(pair.right, &LowRank::right)});
        sources.push_back(
            {pair.lora_b(), pair.left, {pair.layer->out, rank}, factor(pair.left, &LowRank::left)});
    }
    return sources;
}

} // namespace

Status check_adaptable(const Run& run, const Model& model)
{
    for (const LinearLayer* layer : replaced_layers(run, model)) {
        if (layer->expert < 0)
            continue;
        auto decomposition = run.decomposition(layer->name);
        if (!decomposition)
            return decomposition.error();
        if (decomposition->low_rank.rank() > 0)
            return usage_error(
                "transformers keeps the experts of a block in one module, where a PEFT adapter "
                "cannot reach a single expert",
                layer->name, "Export as hf, or plan rank 0 for the experts");
    }
    return {};
}

std::uint64_t adapter_bytes(const Run& run, const Model& model)
{
    std::uint64_t bytes = 0;
    for (const LayerResult& result : run.results()) {
        const LinearLayer* layer = model.find_linear(result.layer);
        const std::int64_t rank = result.parameters["rank"].integer();
        if (layer && rank > 0)
            bytes += k_header_bytes_per_layer
                     + static_cast<std::uint64_t>(rank * (layer->out + layer->in)) * size_bytes(DType::F16);
    }
    return bytes;
}

Status write_peft_adapter(const ExportJob& job)
{
    auto pairs = find_pairs(job);
    if (!pairs)
        return pairs.error();
    if (pairs->empty())
        return {};
    const fs::path folder = job.folder / k_adapter_folder;
    std::error_code problem;
    fs::create_directory(folder, problem);
    if (problem)
        return io_error("the folder cannot be made: " + problem.message(), folder.string());
    std::vector<TensorSource> sources = adapter_tensors(job, *pairs);
    ExportProgress progress(job.monitor, sources.size());
    report_each(sources, progress);
    if (auto written =
            write_safetensors(folder / k_weights_file, std::move(sources), {{"format", "pt"}}, false);
        !written)
        return written;
    return write_text_file(folder / k_config_file, adapter_config(*pairs).dump(2) + "\n", false);
}

Status check_peft_adapter(const ExportJob& job)
{
    auto pairs = find_pairs(job);
    if (!pairs)
        return pairs.error();
    const fs::path folder = job.folder / k_adapter_folder;
    if (pairs->empty())
        return {};
    auto config = Json::read(folder / k_config_file);
    if (!config)
        return config.error();
    if (*config != adapter_config(*pairs))
        return bad_input("its ranks, scales or modules are not those of the run",
                         (folder / k_config_file).string(), "Export again");
    auto reader = CheckpointReader::open(folder / k_weights_file);
    if (!reader)
        return reader.error();
    const std::vector<TensorSource> expected = adapter_tensors(job, *pairs);
    if ((*reader)->tensors().size() != expected.size())
        return bad_input("it holds " + std::to_string((*reader)->tensors().size()) + " tensors, expected "
                             + std::to_string(expected.size()),
                         (folder / k_weights_file).string(), "Export again");
    return compare_tensors(**reader, expected, job.monitor);
}

} // namespace rankscope::export_common
