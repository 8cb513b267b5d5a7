// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/hf.h"

#include "core/export/detail/checkpoint_copy.h"
#include "core/export/detail/export_common.h"

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace export_common;

constexpr std::uint64_t k_report_bytes_per_layer = 1024; // a row of rankscope.json, generously

Replacements dense_layers(const ExportJob& job)
{
    const LayerCache cache(job.run);
    Replacements replacements;
    for (const LinearLayer* layer : replaced_layers(job.run, job.model))
        replacements[layer->weight()] = {dense_source(cache, job.model, *layer, DensePart::Whole)};
    return replacements;
}

class HfExporter : public FolderExporter {
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

protected:
    Status write_content(const ExportJob& job, Json&) const override
    {
        if (auto copied = copy_companions(job.model, job.folder); !copied)
            return copied;
        return write_checkpoint(job, dense_layers(job),
                                "weights of the layers in rankscope.json are Q + L*R");
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        if (auto same = check_companions(job.model, job.folder); !same)
            return same;
        return check_checkpoint(job, dense_layers(job));
    }
};

} // namespace

const Exporter& hf_exporter()
{
    static const HfExporter exporter;
    return exporter;
}

} // namespace rankscope
