// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/checkpoint/checkpoint_writer.h"
#include "core/export/exporter.h"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

/// What an exporter works on. `folder` is where the content lies: still aside while it is written.
struct ExportJob {
    const Run& run;
    const Model& model;
    std::filesystem::path folder;
    Monitor& monitor;
};

/// Counts what is written or compared.
class ExportProgress {
public:
    ExportProgress(Monitor& monitor, std::uint64_t total) : monitor_(monitor), total_(total) {}

    /// Throws Cancelled.
    void step(std::string_view what)
    {
        monitor_.throw_if_cancelled();
        monitor_.report(done_ < total_ ? done_++ : total_, total_, what);
    }

private:
    Monitor& monitor_;
    std::uint64_t total_;
    std::uint64_t done_ = 0;
};

/// Lets each source report when its turn comes; `progress` must outlive them.
template <class Source>
void report_each(std::vector<Source>& sources, ExportProgress& progress)
{
    for (Source& source : sources) {
        source.fill = [&progress, name = source.name, fill = std::move(source.fill)] {
            progress.step(name);
            return fill();
        };
    }
}

/// Each tensor of `expected` stands in `reader` with the bytes that its source makes.
Status compare_tensors(const CheckpointReader& reader, const std::vector<TensorSource>& expected,
                       Monitor& monitor);

/// The frame of every exporter: a folder that appears when it is whole, with a JSON file that says what was
/// done, by which the folder is known again. A format adds what it accepts, its content and how it compares.
class FolderExporter : public Exporter {
public:
    Status source_is_exact(const Run& run, const Model& model) const final;
    Status write(const Run& run, const Model& model, const std::filesystem::path& folder,
                 const ExportOptions& options, Monitor& monitor) const final;
    Status check(const Run& run, const Model& model, const std::filesystem::path& folder,
                 Monitor& monitor) const final;

protected:
    /// File that says what was done; --force replaces only folders that hold it.
    virtual std::string_view report_file() const { return "rankscope.json"; }
    /// Its "format".
    virtual std::string format_name() const { return "rankscope-" + info().id; }
    /// False: the export holds no weights, so that it does not matter what the checkpoint's were.
    virtual bool holds_weights() const { return true; }
    /// Writes everything but the report, which holds describe_run and takes what the format has to add.
    virtual Status write_content(const ExportJob& job, Json& report) const = 0;
    /// Compares everything with the run and the checkpoint; `report` is the one that was found.
    virtual Status check_content(const ExportJob& job, const Json& report) const = 0;

private:
    Status write_folder(const ExportJob& job, const ExportOptions& options) const;
    Status check_folder(const ExportJob& job) const;
};

} // namespace rankscope
