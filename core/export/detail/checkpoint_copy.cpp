// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/checkpoint_copy.h"

#include "core/base/atomic_file.h"
#include "core/export/detail/export_common.h"

#include <memory>

namespace rankscope::export_common {
namespace {

namespace fs = std::filesystem;

constexpr char k_single_file[] = "model.safetensors";
constexpr char k_index_file[] = "model.safetensors.index.json";

/// A shard keeps its name; a checkpoint of one file gets the name that transformers looks for.
std::string shard_name(const Model& model, std::size_t file)
{
    const auto files = model.checkpoint().files();
    return files.size() == 1 ? k_single_file : files[file].filename().string();
}

std::map<std::string, std::string> shard_metadata(const Model& model, const std::string& note)
{
    std::map<std::string, std::string> metadata;
    if (const Json::Object* texts = model.checkpoint().metadata().object_if()) {
        for (const auto& [key, value] : *texts)
            metadata[key] = value.string();
    }
    metadata["format"] = "pt"; // transformers asks for it
    metadata["rankscope"] = note;
    return metadata;
}

/// The tensors of one shard, or of all (file < 0), as they must stand in the export.
std::vector<TensorSource> sources_of(const Model& model, int file, const Replacements& replacements)
{
    std::vector<TensorSource> sources;
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        if (file >= 0 && info.file != file)
            continue;
        if (const auto found = replacements.find(info.name); found != replacements.end())
            sources.insert(sources.end(), found->second.begin(), found->second.end());
        else
            sources.push_back({info.name, info.dtype, info.shape,
                               [&model, name = info.name] { return original_bytes(model, name); }});
    }
    return sources;
}

std::uint64_t size_of(const TensorSource& source)
{
    std::uint64_t size = size_bytes(source.dtype);
    for (const std::int64_t side : source.shape)
        size *= static_cast<std::uint64_t>(side);
    return size;
}

std::uint64_t count_tensors(const Model& model, const Replacements& replacements)
{
    std::uint64_t count = model.checkpoint().tensors().size();
    for (const auto& [name, sources] : replacements)
        count += sources.size() - 1;
    return count;
}

} // namespace

Status write_checkpoint(const ExportJob& job, const Replacements& replacements, const std::string& note)
{
    ExportProgress progress(job.monitor, count_tensors(job.model, replacements));
    const auto metadata = shard_metadata(job.model, note);
    Json weight_map = Json::Object{};
    std::uint64_t total = 0;
    const std::size_t files = job.model.checkpoint().files().size();
    for (std::size_t file = 0; file < files; ++file) {
        std::vector<TensorSource> sources = sources_of(job.model, static_cast<int>(file), replacements);
        for (const TensorSource& source : sources) {
            weight_map.set(source.name, shard_name(job.model, file));
            total += size_of(source);
        }
        report_each(sources, progress);
        if (auto written = write_safetensors(job.folder / shard_name(job.model, file), std::move(sources),
                                             metadata, false);
            !written)
            return written;
    }
    if (files < 2)
        return {};
    Json index;
    index.set("metadata", Json::Object{{"total_size", Json(total)}});
    index.set("weight_map", std::move(weight_map));
    return write_text_file(job.folder / k_index_file, index.dump(2) + "\n", false);
}

Status check_checkpoint(const ExportJob& job, const Replacements& replacements)
{
    auto reader = CheckpointReader::open(job.folder);
    if (!reader)
        return reader.error();
    const std::vector<TensorSource> expected = sources_of(job.model, -1, replacements);
    if ((*reader)->tensors().size() != expected.size())
        return bad_input("it holds " + std::to_string((*reader)->tensors().size()) + " tensors, expected "
                             + std::to_string(expected.size()),
                         job.folder.string(), "Export again");
    return compare_tensors(**reader, expected, job.monitor);
}

std::uint64_t untouched_bytes(const Model& model, const std::set<std::string>& replaced)
{
    constexpr std::uint64_t k_header_bytes_per_tensor = 512; // in the file and in the index, generously
    std::uint64_t bytes = 0;
    for (const TensorInfo& info : model.checkpoint().tensors())
        bytes += k_header_bytes_per_tensor + (replaced.contains(info.name) ? 0 : info.bytes);
    return bytes;
}

} // namespace rankscope::export_common
