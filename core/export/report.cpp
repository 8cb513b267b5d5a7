// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/report.h"

#include "core/base/atomic_file.h"
#include "core/export/detail/export_common.h"
#include "core/export/detail/report_page.h"

#include <algorithm>

namespace rankscope {
namespace {

namespace fs = std::filesystem;
using namespace export_common;

constexpr char k_page[] = "report.html";
constexpr char k_table[] = "report.csv";
constexpr std::uint64_t k_page_bytes = 256 << 10;
constexpr std::uint64_t k_layer_bytes = 4096; ///< in table, plots, CSV and rankscope.json

Status compare_text(const fs::path& file, const std::string& expected)
{
    auto found = read_text_file(file);
    if (!found)
        return found.error();
    if (*found == expected)
        return {};
    const auto [ours, theirs] = std::mismatch(expected.begin(), expected.end(), found->begin(), found->end());
    const auto line = std::count(expected.begin(), ours, '\n') + 1;
    return bad_input("it is not what the run says from line " + std::to_string(line) + " on", file.string(),
                     "Export again");
}

class ReportExporter : public FolderExporter {
public:
    const ExporterInfo& info() const override
    {
        static const ExporterInfo info{
            "report", "Report for a paper or a ticket",
            "One HTML page with plan, sizes, errors, perplexities and plots, and the same "
            "as CSV; no weights"};
        return info;
    }

    Status accepts(const Run& run, const Model& model) const override { return check_complete(run, model); }

    Result<std::uint64_t> estimate_bytes(const Run& run, const Model&) const override
    {
        return k_page_bytes + k_layer_bytes * run.results().size();
    }

protected:
    bool holds_weights() const override { return false; }

    Status write_content(const ExportJob& job, Json& report) const override
    {
        auto data = collect_report(job);
        if (!data)
            return data.error();
        report.set("page", k_page);
        report.set("table", k_table);
        if (auto written = write_text_file(job.folder / k_page, report_page(*data), false); !written)
            return written;
        return write_text_file(job.folder / k_table, report_csv(*data), false);
    }

    Status check_content(const ExportJob& job, const Json&) const override
    {
        auto data = collect_report(job);
        if (!data)
            return data.error();
        if (auto same = compare_text(job.folder / k_page, report_page(*data)); !same)
            return same;
        return compare_text(job.folder / k_table, report_csv(*data));
    }
};

} // namespace

const Exporter& report_exporter()
{
    static const ReportExporter exporter;
    return exporter;
}

} // namespace rankscope
