// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/hf.h"

#include "core/base/atomic_file.h"
#include "core/checkpoint/checkpoint_writer.h"
#include "core/compute/job_border.h"
#include "core/export/detail/export_common.h"

#include <map>
#include <set>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace export_common;

constexpr char k_report_file[] = "rankscope.json";
constexpr char k_index_file[] = "model.safetensors.index.json";
constexpr std::uint64_t k_report_bytes_per_layer = 1024; // a row of rankscope.json, generously

/// A shard keeps its name; a checkpoint of one file gets the name that transformers looks for.
std::string shard_name(const Model& model, std::size_t file)
{
    const auto files = model.checkpoint().files();
    return files.size() == 1 ? "model.safetensors" : files[file].filename().string();
}

std::map<std::string, std::string> shard_metadata(const Model& model)
{
    std::map<std::string, std::string> metadata;
    if (const Json::Object* texts = model.checkpoint().metadata().object_if()) {
        for (const auto& [key, value] : *texts)
            metadata[key] = value.string();
    }
    metadata["format"] = "pt"; // transformers asks for it
    metadata["rankscope"] = "weights of the layers in rankscope.json are Q + L*R";
    return metadata;
}

class HfExporter : public Exporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{"hf", "Hugging Face, dense",
                                       "Reconstructed weights Q + L·R in the checkpoint's own type and "
                                       "shards; loads in transformers and in "
                                       "whatever reads the original"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override { return check_exportable(run, model); }

    Result<std::uint64_t> estimate_bytes(const Run&, const Model& model) const override
    {
        std::uint64_t bytes =
            companion_bytes(model) + k_report_bytes_per_layer * (model.linears().size() + 1);
        for (const fs::path& file : model.checkpoint().files()) {
            std::error_code problem;
            const auto size = fs::file_size(file, problem);
            if (problem)
                return io_error("its size cannot be read: " + problem.message(), file.string());
            bytes += size;
        }
        return bytes;
    }

    Status write(const Run& run, const Model& model, const fs::path& folder, const ExportOptions& options,
                 Monitor& monitor) const override
    {
        return at_job_border("nothing was written",
                             [&] { return write_folder(run, model, folder, options, monitor); });
    }

    Status check(const Run& run, const Model& model, const fs::path& folder, Monitor& monitor) const override
    {
        return at_job_border("nothing was changed",
                             [&] { return check_folder(run, model, folder, monitor); });
    }

private:
    Status write_folder(const Run& run, const Model& model, const fs::path& folder,
                        const ExportOptions& options, Monitor& monitor) const
    {
        if (auto fits = accepts(run, model); !fits)
            return fits;
        auto bytes = estimate_bytes(run, model);
        if (!bytes)
            return bytes.error();
        if (auto room = require_free_disk(folder, *bytes); !room)
            return room;
        if (auto ours = options.replace ? require_replaceable(folder, k_report_file) : Status{}; !ours)
            return ours;
        auto target = AtomicFolder::create(folder, options.replace);
        if (!target)
            return target.error();
        if (auto copied = copy_companions(model, target->part()); !copied)
            return copied;
        Progress progress{monitor, model.checkpoint().tensors().size()};
        for (std::size_t file = 0; file < model.checkpoint().files().size(); ++file) {
            if (auto written = write_shard(run, model, file, target->part(), progress); !written)
                return written;
        }
        if (auto written = write_index(model, target->part()); !written)
            return written;
        const std::string report = describe_run(run, model, "rankscope-hf").dump(2) + "\n";
        if (auto written = write_text_file(target->part() / k_report_file, report, false); !written)
            return written;
        return target->commit();
    }

    struct Progress {
        Monitor& monitor;
        std::uint64_t total;
        std::uint64_t done = 0;

        void step(const std::string& tensor)
        {
            monitor.throw_if_cancelled();
            monitor.report(done++, total, tensor);
        }
    };

    static Status write_shard(const Run& run, const Model& model, std::size_t file, const fs::path& folder,
                              Progress& progress)
    {
        const std::map<std::string, const LinearLayer*> replaced = replaced_tensors(run, model);
        std::vector<TensorSource> sources;
        for (const TensorInfo& info : model.checkpoint().tensors()) {
            if (static_cast<std::size_t>(info.file) != file)
                continue;
            const auto found = replaced.find(info.name);
            const LinearLayer* layer = found == replaced.end() ? nullptr : found->second;
            sources.push_back(
                {info.name, info.dtype, info.shape, [&, layer, name = info.name, dtype = info.dtype] {
                     progress.step(name);
                     return layer ? dense_bytes(run, *layer, dtype) : original_bytes(model, name);
                 }});
        }
        return write_safetensors(folder / shard_name(model, file), std::move(sources), shard_metadata(model),
                                 false);
    }

    static std::map<std::string, const LinearLayer*> replaced_tensors(const Run& run, const Model& model)
    {
        std::map<std::string, const LinearLayer*> tensors;
        for (const std::string& name : replaced_layers(run)) {
            if (const LinearLayer* layer = model.find_linear(name))
                tensors[layer->weight()] = layer;
        }
        return tensors;
    }

    static Status write_index(const Model& model, const fs::path& folder)
    {
        if (model.checkpoint().files().size() < 2)
            return {};
        auto index = read_text_file(model_folder(model) / k_index_file);
        if (!index)
            return index.error();
        return write_text_file(folder / k_index_file, *index, false);
    }

    Status check_folder(const Run& run, const Model& model, const fs::path& folder, Monitor& monitor) const
    {
        if (auto fits = accepts(run, model); !fits)
            return fits;
        auto reader = CheckpointReader::open(folder);
        if (!reader)
            return reader.error();
        if (auto same = check_companions(model, folder); !same)
            return same;
        const auto originals = model.checkpoint().tensors();
        if ((*reader)->tensors().size() != originals.size())
            return bad_input("it holds " + std::to_string((*reader)->tensors().size()) + " tensors, expected "
                                 + std::to_string(originals.size()),
                             folder.string(), "Export again");
        const auto replaced = replaced_tensors(run, model);
        Progress progress{monitor, originals.size()};
        for (const TensorInfo& info : originals) {
            progress.step(info.name);
            const auto found = replaced.find(info.name);
            auto bytes = found == replaced.end() ? original_bytes(model, info.name)
                                                 : dense_bytes(run, *found->second, info.dtype);
            if (!bytes)
                return bytes.error();
            if (auto same = compare_tensor(**reader, info.name, info.dtype, info.shape, *bytes); !same)
                return same;
        }
        return {};
    }
};

} // namespace

const Exporter& hf_exporter()
{
    static const HfExporter exporter;
    return exporter;
}

} // namespace rankscope
