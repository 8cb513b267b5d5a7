// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/integer_exporter.h"

#include "core/export/detail/peft_adapter.h"
#include "core/export/detail/stored_floats.h"

namespace rankscope::export_common {
namespace {

constexpr std::uint64_t k_texts_bytes = 1 << 20;

/// A model opened from the folder has the run's Q, with scales as they are stored.
Status check_weights(const ExportJob& job, const IntegerLayers& layers)
{
    auto model = Model::open(job.folder);
    if (!model)
        return model.error();
    ExportProgress progress(job.monitor, layers.packed.size());
    for (const LinearLayer* layer : layers.packed) {
        progress.step(layer->name);
        const LinearLayer* exported = (*model)->find_linear(layer->name);
        if (!exported)
            return bad_input("the layer " + layer->name + " is missing", job.folder.string(), "Export again");
        auto found = (*model)->weight(*exported);
        if (!found)
            return found.error();
        auto decomposition = job.run.decomposition(layer->name);
        if (!decomposition)
            return decomposition.error();
        QuantizedMatrix& q = decomposition->quantized;
        q.scales = through(layers.scale_types.at(layer->name), q.scales);
        if (*found != q.dequantize())
            return bad_input("the weight of " + layer->name + " reads back as another one",
                             job.folder.string(), "Export again");
    }
    return {};
}

} // namespace

Status IntegerExporter::accepts(const Run& run, const Model& model) const
{
    if (auto fits = check_exportable(run, model); !fits)
        return fits;
    if (auto found = find({run, model, {}, silent_monitor()}); !found)
        return found.error();
    return check_adaptable(run, model);
}

Result<std::uint64_t> IntegerExporter::estimate_bytes(const Run& run, const Model& model) const
{
    return companion_bytes(model) + k_texts_bytes + untouched_bytes(model, replaced_weights(run, model))
           + integer_bytes(run, model, widths()) + adapter_bytes(run, model);
}

Result<IntegerLayers> IntegerExporter::find(const ExportJob& job) const
{
    auto layers = find_integer_layers(job, widths(), info().id);
    if (!layers)
        return layers;
    if (auto fits = accepts_layers(*layers, job.model); !fits)
        return fits.error();
    return layers;
}

Replacements IntegerExporter::replacements(const ExportJob& job, const IntegerLayers& layers) const
{
    const IntegerTensors integers(job.run, layers.scheme);
    const LayerCache cache(job.run);
    Replacements replacements;
    for (const LinearLayer* layer : layers.packed)
        replacements[layer->weight()] = tensors(integers, *layer, layers.scale_types.at(layer->name));
    for (const LinearLayer* layer : layers.empty)
        replacements[layer->weight()] = {dense_source(cache, job.model, *layer, DensePart::Base)};
    return replacements;
}

Json IntegerExporter::config_additions(const IntegerLayers& layers, const Model& model) const
{
    Json additions = Json::Object{};
    additions.set("quantization_config", quantization_config(layers, model));
    return additions;
}

Status IntegerExporter::write_content(const ExportJob& job, Json& report) const
{
    auto layers = find(job);
    if (!layers)
        return layers.error();
    report.set("bits", layers->scheme.bits);
    report.set("group_width", layers->scheme.reported_group());
    report.set("symmetric", layers->scheme.symmetric);
    if (auto copied = copy_companions(job.model, job.folder, config_additions(*layers, job.model)); !copied)
        return copied;
    if (auto written = write_checkpoint(job, replacements(job, *layers),
                                        "layers hold Q; L and R, where there are any, are in adapter");
        !written)
        return written;
    return write_peft_adapter(job);
}

Status IntegerExporter::check_content(const ExportJob& job, const Json&) const
{
    auto layers = find(job);
    if (!layers)
        return layers.error();
    if (auto same = check_companions(job.model, job.folder, config_additions(*layers, job.model)); !same)
        return same;
    if (auto same = check_checkpoint(job, replacements(job, *layers)); !same)
        return same;
    if (auto same = check_weights(job, *layers); !same)
        return same;
    return check_peft_adapter(job);
}

} // namespace rankscope::export_common
