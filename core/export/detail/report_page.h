// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/export/detail/folder_exporter.h"

#include <string>
#include <vector>

namespace rankscope::export_common {

/// One layer of the run as the report shows it.
struct ReportRow {
    const LinearLayer* layer = nullptr;
    LayerResult result;
    std::uint64_t original_bytes = 0;
    std::uint64_t compressed_bytes = 0;
    double factor_bits = 0.0; ///< of bits_per_weight, what L and R take
};

/// Everything that the report says; no time and no place, so that the same run makes the same report.
struct ReportData {
    std::string model; ///< the checkpoint's name
    std::string architecture;
    const Plan* plan = nullptr;
    std::vector<ReportRow> rows;
    std::vector<Json> evaluations;
    std::uint64_t checkpoint_bytes = 0;

    double bits_per_weight() const;
    std::uint64_t original_bytes() const;
    std::uint64_t compressed_bytes() const;
    double mean_activation_error() const;
};

/// Reads every layer. Errors: those of Run::decomposition and of recorded evaluations.
Result<ReportData> collect_report(const ExportJob& job);

/// A page that needs no other file: style, figures, plots as SVG, tables, command lines; in light, dark and
/// on paper.
std::string report_page(const ReportData& data);
/// A line for each layer, with a head; numbers as they read back.
std::string report_csv(const ReportData& data);

} // namespace rankscope::export_common
