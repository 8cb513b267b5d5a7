// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/options.h"
#include "app/cli/session.h"
#include "core/base/byte_size.h"
#include "core/export/exporter.h"

#include <fmt/format.h>

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace rankscope::cli {
namespace {

struct ExportCommandOptions {
    std::filesystem::path run;
    std::filesystem::path out;
    std::string format = "hf";
    bool check = false;
    bool force = false;
};

std::string format_help()
{
    std::string text = "Format:";
    for (const Exporter* exporter : exporters())
        text += fmt::format(" {} ({});", exporter->info().id, exporter->info().summary);
    text.pop_back();
    return text;
}

std::uint64_t folder_bytes(const std::filesystem::path& folder)
{
    std::uint64_t bytes = 0;
    std::error_code problem;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, problem))
        bytes += entry.is_regular_file(problem) ? entry.file_size(problem) : 0;
    return bytes;
}

/// Layers follow one another with matrices of the same sizes: what one has freed serves the next, instead of
/// going back to the system, which would hand it out again page by page and cleared. Halves the time.
void keep_freed_memory()
{
#ifdef __GLIBC__
    constexpr int k_largest_reused = 32 << 20;
    constexpr int k_most_kept = 64 << 20;
    mallopt(M_MMAP_THRESHOLD, k_largest_reused);
    mallopt(M_TRIM_THRESHOLD, k_most_kept);
#endif
}

Result<Output> export_command(const ExportCommandOptions& options, Session& session)
{
    keep_freed_memory();
    auto exporter = require_exporter(options.format);
    if (!exporter)
        return exporter.error();
    auto run = Run::open(options.run);
    if (!run)
        return run.error();
    if (!(*run)->complete())
        session.monitor().warn(
            "The run is not finished: layers that are missing are exported as they are in the "
            "checkpoint.");
    auto model = (*run)->model();
    if (!model)
        return model.error();
    if (auto accepted = (*exporter)->accepts(**run, **model); !accepted)
        return accepted.error();
    ProgressLine& monitor = session.monitor();
    const ExportOptions write{options.force, options.force};
    if (auto written = (*exporter)->write(**run, **model, options.out, write, monitor); !written)
        return written.error();
    if (options.check) {
        if (auto same = (*exporter)->check(**run, **model, options.out, monitor); !same)
            return same.error();
    }
    const std::uint64_t bytes = folder_bytes(options.out);
    Output output;
    output.document.set("out", options.out.string());
    output.document.set("format", options.format);
    output.document.set("bytes", bytes);
    output.document.set("checked", options.check);
    output.document.set("process", session.process());
    output.text = fmt::format("{}: {} as {}{}\n", options.out.string(), format_byte_size(bytes),
                              options.format, options.check ? ", read back and compared: equal" : "");
    return output;
}

} // namespace

void add_export(Program& program)
{
    auto options = std::make_shared<ExportCommandOptions>();
    CLI::App* command =
        program.add("export", "Writes a run in a format that other programs load",
                    [options](Session& session) { return export_command(*options, session); });
    command->add_option("RUN", options->run, "Run folder")->required();
    command->add_option("--format", options->format, format_help())->type_name("F")->required();
    command->add_option("--out", options->out, "Folder to be written")->type_name("DIR")->required();
    command->add_flag("--check", options->check, "Read back what was written and compare");
    add_force(command, options->force);
}

} // namespace rankscope::cli
