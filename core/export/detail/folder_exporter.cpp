// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/folder_exporter.h"

#include "core/base/atomic_file.h"
#include "core/compute/job_border.h"
#include "core/export/detail/export_common.h"

namespace rankscope {

namespace fs = std::filesystem;

Status compare_tensors(const CheckpointReader& reader, const std::vector<TensorSource>& expected,
                       Monitor& monitor)
{
    ExportProgress progress(monitor, expected.size());
    for (const TensorSource& source : expected) {
        progress.step(source.name);
        auto bytes = source.fill();
        if (!bytes)
            return bytes.error();
        if (auto same =
                export_common::compare_tensor(reader, source.name, source.dtype, source.shape, *bytes);
            !same)
            return same;
    }
    return {};
}

/// Weights that were rounded before and are rounded again add both errors, which no figure of the run shows.
Status FolderExporter::source_is_exact(const Run& run, const Model& model) const
{
    if (!holds_weights())
        return {};
    for (const LinearLayer* layer : export_common::replaced_layers(run, model)) {
        const TensorInfo* info = model.checkpoint().find(layer->weight());
        if (info->is_quantized())
            return usage_error("the checkpoint's own weight is quantized (" + std::string(info->type_name())
                                   + "), so that the export would be rounded twice",
                               layer->name,
                               "Compress the original checkpoint, or export with --force nevertheless");
    }
    return {};
}

Status FolderExporter::write(const Run& run, const Model& model, const fs::path& folder,
                             const ExportOptions& options, Monitor& monitor) const
{
    return at_job_border("nothing was written", [&] {
        return write_folder(ExportJob{run, model, folder, monitor}, options);
    });
}

Status FolderExporter::check(const Run& run, const Model& model, const fs::path& folder,
                             Monitor& monitor) const
{
    return at_job_border("nothing was changed", [&] {
        return check_folder(ExportJob{run, model, folder, monitor});
    });
}

Status FolderExporter::write_folder(const ExportJob& job, const ExportOptions& options) const
{
    if (auto fits = accepts(job.run, job.model); !fits)
        return fits;
    if (auto exact = options.requantize ? Status{} : source_is_exact(job.run, job.model); !exact)
        return exact;
    auto bytes = estimate_bytes(job.run, job.model);
    if (!bytes)
        return bytes.error();
    if (auto room = require_free_disk(job.folder, *bytes); !room)
        return room;
    if (auto ours = options.replace ? require_replaceable(job.folder, report_file()) : Status{}; !ours)
        return ours;
    auto target = AtomicFolder::create(job.folder, options.replace);
    if (!target)
        return target.error();
    Json report = export_common::describe_run(job.run, job.model, format_name());
    if (auto written = write_content(ExportJob{job.run, job.model, target->part(), job.monitor}, report);
        !written)
        return written;
    const std::string text = report.dump(2) + "\n";
    if (auto written = write_text_file(target->part() / report_file(), text, false); !written)
        return written;
    job.monitor.throw_if_cancelled();
    return target->commit();
}

Status FolderExporter::check_folder(const ExportJob& job) const
{
    if (auto fits = accepts(job.run, job.model); !fits)
        return fits;
    const fs::path file = job.folder / report_file();
    auto report = Json::read(file);
    if (!report)
        return report.error();
    if ((*report)["format"].string() != format_name() || (*report)["version"].integer(-1) != 1)
        return bad_input("this is no " + format_name() + " export of version 1", file.string(),
                         "Export again");
    return check_content(job, *report);
}

} // namespace rankscope
