// SPDX-License-Identifier: GPL-3.0-or-later
//
// The weights file is not called model.safetensors: a reader that does not know the format would find the
// linear layers missing and fill them with random numbers instead of refusing.
#include "core/export/hf_qlr.h"

#include "core/base/atomic_file.h"
#include "core/checkpoint/packed_checkpoint.h"
#include "core/export/detail/export_common.h"
#include "core/export/detail/folder_exporter.h"
#include "core/export/detail/qlr_layer.h"
#include "core/export/detail/qlr_loader.h"

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace export_common;

constexpr char k_loader_file[] = "load_qlr.py";
constexpr std::uint64_t k_texts_bytes = 1 << 20;

Result<PackedLayer> pack(const Run& run, const LinearLayer& layer)
{
    auto decomposition = run.decomposition(layer.name);
    if (!decomposition)
        return decomposition.error();
    return pack_layer(*decomposition, layer);
}

/// Hands out the tensors of packed layers; keeps the last one, because its tensors are asked for in a row.
class LayerPacker {
public:
    explicit LayerPacker(const Run& run) : run_(run) {}

    Result<std::vector<std::byte>> bytes(const LinearLayer& layer, const std::string& suffix)
    {
        if (name_ != layer.name) {
            auto packed = pack(run_, layer);
            if (!packed)
                return packed.error();
            packed_ = std::move(*packed);
            name_ = layer.name;
        }
        return packed_.tensors[suffix].bytes;
    }

private:
    const Run& run_;
    std::string name_;
    PackedLayer packed_;
};

std::vector<const TensorInfo*> untouched_tensors(const Run& run, const Model& model)
{
    const std::set<std::string> replaced = replaced_weights(run, model);
    std::vector<const TensorInfo*> tensors;
    for (const TensorInfo& info : model.checkpoint().tensors()) {
        if (!replaced.contains(info.name))
            tensors.push_back(&info);
    }
    return tensors;
}

/// The loader script puts its modules in the place of torch.nn.Linear modules by name.
Status check_loadable(const Run& run, const Model& model)
{
    const std::string remedy = "Export with hf instead";
    for (const LinearLayer* layer : replaced_layers(run, model)) {
        if (layer->transposed)
            return bad_input("the layer is a Conv1D in transformers, which the loader script cannot replace",
                             layer->name, remedy);
        if (layer->expert >= 0)
            return bad_input(
                "transformers keeps the experts of a block in one module, which the loader script "
                "cannot replace",
                layer->name, remedy);
    }
    auto usual = architecture_for(model.config());
    if (!usual)
        return usual.error();
    if ((*usual)->embedding() != model.architecture().embedding())
        return bad_input(
            "the checkpoint leaves out the prefix of its tensors' names, so that the loader script "
            "cannot find the modules",
            model.path().string(), remedy);
    return {};
}

class HfQlrExporter : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{"hf-qlr", "Hugging Face, Q + L·R kept",
                                       "Packed codes, scales, L and R in one safetensors file with a loader "
                                       "script for transformers; as small as "
                                       "the plan says"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override
    {
        if (auto fits = check_exportable(run, model); !fits)
            return fits;
        for (const LayerResult& result : run.results()) {
            auto decomposition = run.decomposition(result.layer);
            if (!decomposition)
                return decomposition.error();
            if (auto fits = check_packable(*decomposition); !fits)
                return fits.error().in(result.layer);
        }
        return check_loadable(run, model);
    }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override
    {
        std::uint64_t bytes = companion_bytes(model) + k_texts_bytes;
        for (const TensorInfo* info : untouched_tensors(run, model))
            bytes += info->bytes;
        for (const LayerResult& result : run.results()) {
            if (const LinearLayer* layer = model.find_linear(result.layer)) {
                const auto weights = static_cast<double>(layer->out) * static_cast<double>(layer->in);
                constexpr std::uint64_t k_row_padding = 8; // codes and zero points end at a word
                bytes += static_cast<std::uint64_t>(result.bits_per_weight * weights / 8.0)
                         + k_row_padding * static_cast<std::uint64_t>(layer->out);
            }
        }
        return bytes;
    }

protected:
    std::string_view report_file() const override { return k_qlr_schema_file; }
    std::string format_name() const override { return k_qlr_format; }

    Status write_content(const ExportJob& job, Json& schema) const override
    {
        if (auto copied = copy_companions(job.model, job.folder); !copied)
            return copied;
        schema.set("weights", k_qlr_weights_file);
        schema.set("loader", k_loader_file);
        if (auto written = write_weights(job, schema); !written)
            return written;
        return write_text_file(job.folder / k_loader_file, qlr_loader_source(), false);
    }

    Status check_content(const ExportJob& job, const Json& schema) const override
    {
        auto reader = CheckpointReader::open(job.folder / k_qlr_weights_file);
        if (!reader)
            return reader.error();
        if (auto same = check_companions(job.model, job.folder); !same)
            return same;
        auto again = CheckpointReader::open(job.folder / k_qlr_weights_file);
        if (!again)
            return again.error();
        auto opened = with_dense_layers(std::move(*again), job.folder, Json());
        if (!opened)
            return opened.error();
        const auto layers = replaced_layers(job.run, job.model);
        const auto untouched = untouched_tensors(job.run, job.model);
        ExportProgress progress(job.monitor, layers.size() + untouched.size());
        for (const LinearLayer* layer : layers) {
            progress.step(layer->name);
            if (auto same = check_layer(job.run, schema, **reader, **opened, *layer); !same)
                return same;
        }
        for (const TensorInfo* info : untouched) {
            progress.step(info->name);
            auto bytes = original_bytes(job.model, info->name);
            if (!bytes)
                return bytes.error();
            if (auto same = compare_tensor(**reader, info->name, info->dtype, info->shape, *bytes); !same)
                return same;
        }
        return {};
    }

private:
    /// Also adds to the schema how each layer is laid out.
    static Status write_weights(const ExportJob& job, Json& schema)
    {
        LayerPacker packer(job.run);
        std::vector<TensorSource> sources;
        Json described = schema["layers"];
        const auto layers = replaced_layers(job.run, job.model);
        ExportProgress laying_out(job.monitor, layers.size());
        for (const LinearLayer* layer : layers) {
            laying_out.step("laying out " + layer->name);
            auto packed = pack(job.run, *layer);
            if (!packed)
                return packed.error();
            Json entry = described[layer->name];
            describe_layout(*packed, entry);
            described.set(layer->name, std::move(entry));
            for (const auto& [suffix, tensor] : packed->tensors)
                sources.push_back(
                    {layer->name + suffix, tensor.dtype, tensor.shape,
                     [&packer, layer, suffix = suffix] { return packer.bytes(*layer, suffix); }});
        }
        schema.set("layers", std::move(described));
        for (const TensorInfo* info : untouched_tensors(job.run, job.model))
            sources.push_back({info->name, info->dtype, info->shape, [&model = job.model, name = info->name] {
                                   return original_bytes(model, name);
                               }});
        ExportProgress progress(job.monitor, sources.size());
        report_each(sources, progress);
        return write_safetensors(job.folder / k_qlr_weights_file, std::move(sources),
                                 {{"format", k_qlr_format}, {"version", "1"}}, false);
    }

    /// The file holds the bytes that the run's layer is packed to, and whoever opens the export gets the
    /// weight that the run has, its scales and factors rounded to the stored types.
    static Status check_layer(const Run& run, const Json& schema, const CheckpointReader& stored,
                              const CheckpointReader& opened, const LinearLayer& layer)
    {
        auto original = run.decomposition(layer.name);
        if (!original)
            return original.error();
        auto packed = pack_layer(*original, layer);
        if (!packed)
            return packed.error();
        const Json& described = schema["layers"][layer.name];
        Json expected = described;
        describe_layout(*packed, expected);
        if (!(expected == described))
            return bad_input("the description of " + layer.name + " is not that of the run",
                             stored.path().string(), "Export again");
        for (const auto& [suffix, tensor] : packed->tensors) {
            if (auto same =
                    compare_tensor(stored, layer.name + suffix, tensor.dtype, tensor.shape, tensor.bytes);
                !same)
                return same;
        }
        auto weight = opened.read(layer.weight());
        if (!weight)
            return weight.error();
        if (*weight == rounded_to_stored(*original, *packed).reconstruct())
            return {};
        return bad_input("the weight of " + layer.name + " reads back as another than the run's",
                         stored.path().string(), "Export again");
    }
};

} // namespace

const Exporter& hf_qlr_exporter()
{
    static const HfQlrExporter exporter;
    return exporter;
}

} // namespace rankscope
