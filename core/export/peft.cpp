// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/peft.h"

#include "core/export/detail/checkpoint_copy.h"
#include "core/export/detail/export_common.h"
#include "core/export/detail/peft_adapter.h"

namespace rankscope {
namespace {

using namespace export_common;

constexpr std::uint64_t k_texts_bytes = 1 << 20;

Replacements base_layers(const ExportJob& job)
{
    const LayerCache cache(job.run);
    Replacements replacements;
    for (const LinearLayer* layer : replaced_layers(job.run, job.model))
        replacements[layer->weight()] = {dense_source(cache, job.model, *layer, DensePart::Base)};
    return replacements;
}

class PeftExporter : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{"peft", "Hugging Face, dense Q + PEFT adapter",
                                       "The folder's weights are Q in the checkpoint's own type; adapter/ is "
                                       "a LoRA adapter of L and R that PEFT loads on top, each layer with "
                                       "its own rank"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override
    {
        if (auto fits = check_exportable(run, model); !fits)
            return fits;
        if (auto factors = require_factors(run, "hf"); !factors)
            return factors;
        return check_adaptable(run, model);
    }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model& model) const override
    {
        return companion_bytes(model) + k_texts_bytes + untouched_bytes(model, {})
               + adapter_bytes(run, model);
    }

protected:
    Status write_content(const ExportJob& job, Json& report) const override
    {
        if (auto copied = copy_companions(job.model, job.folder); !copied)
            return copied;
        if (auto written =
                write_checkpoint(job, base_layers(job),
                                 "weights of the layers in rankscope.json are Q; L and R are in adapter");
            !written)
            return written;
        report.set("adapter", k_adapter_folder);
        return write_peft_adapter(job);
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        if (auto same = check_companions(job.model, job.folder); !same)
            return same;
        if (auto same = check_checkpoint(job, base_layers(job)); !same)
            return same;
        return check_peft_adapter(job);
    }
};

} // namespace

const Exporter& peft_exporter()
{
    static const PeftExporter exporter;
    return exporter;
}

} // namespace rankscope
