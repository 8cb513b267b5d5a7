// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/export/detail/export_common.h"
#include "core/export/detail/report_page.h"

#include "core/evaluate/evaluation_record.h"

#include <fmt/format.h>

#include <cmath>

namespace rankscope::export_common {
namespace {

std::string quoted(std::string text)
{
    for (auto at = text.find('"'); at != std::string::npos; at = text.find('"', at + 2))
        text.insert(at, 1, '"');
    return '"' + text + '"';
}

} // namespace

double ReportData::bits_per_weight() const
{
    double bits = 0.0;
    double weights = 0.0;
    for (const ReportRow& row : rows) {
        const auto count = static_cast<double>(row.layer->out) * static_cast<double>(row.layer->in);
        bits += row.result.bits_per_weight * count;
        weights += count;
    }
    return weights > 0.0 ? bits / weights : 0.0;
}

std::uint64_t ReportData::original_bytes() const
{
    std::uint64_t sum = 0;
    for (const ReportRow& row : rows)
        sum += row.original_bytes;
    return sum;
}

std::uint64_t ReportData::compressed_bytes() const
{
    std::uint64_t sum = 0;
    for (const ReportRow& row : rows)
        sum += row.compressed_bytes;
    return sum;
}

double ReportData::mean_activation_error() const
{
    double sum = 0.0;
    for (const ReportRow& row : rows)
        sum += row.result.quality.relative_activation_error;
    return rows.empty() ? 0.0 : sum / static_cast<double>(rows.size());
}

Result<ReportData> collect_report(const ExportJob& job)
{
    ReportData data;
    std::filesystem::path name = job.model.path().filename();
    data.model = (name.empty() ? job.model.path().parent_path().filename() : name).string();
    data.architecture = job.model.architecture().title();
    data.plan = &job.run.plan();
    data.checkpoint_bytes = checkpoint_bytes(job.model);
    const std::vector<LayerResult> results = job.run.results();
    ExportProgress progress(job.monitor, 2 * results.size());
    for (const LayerResult& result : results) {
        progress.step(result.layer);
        auto decomposition = job.run.decomposition(result.layer);
        if (!decomposition)
            return decomposition.error();
        ReportRow row;
        row.layer = job.model.find_linear(result.layer);
        row.result = result;
        const auto weights = static_cast<double>(row.layer->out) * static_cast<double>(row.layer->in);
        row.original_bytes = job.model.checkpoint().find(row.layer->weight())->bytes;
        row.compressed_bytes = static_cast<std::uint64_t>(std::ceil(result.bits_per_weight * weights / 8.0));
        row.factor_bits = factor_storage_bits(row.layer->out, row.layer->in, decomposition->low_rank.rank(),
                                              decomposition->factors)
                          / weights;
        data.rows.push_back(std::move(row));
        progress.step(result.layer);
    }
    auto evaluations = recorded_evaluations(job.run.path());
    if (!evaluations)
        return evaluations.error();
    data.evaluations = std::move(*evaluations);
    return data;
}

std::string report_csv(const ReportData& data)
{
    std::string csv =
        "layer,block,role,method,parameters,out,in,bits_per_weight,factor_bits_per_weight,original_bytes,"
        "compressed_bytes,relative_error,relative_activation_error,ratio_qx,ratio_lrx,"
        "quantization_scale,seconds,backend\n";
    for (const ReportRow& row : data.rows) {
        const LayerResult& result = row.result;
        csv += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", quoted(result.layer),
                           row.layer->block, short_name(row.layer->role), quoted(result.method),
                           quoted(result.parameters.dump()), row.layer->out, row.layer->in,
                           result.bits_per_weight, row.factor_bits, row.original_bytes, row.compressed_bytes,
                           result.quality.relative_error, result.quality.relative_activation_error,
                           result.quality.ratio_qx, result.quality.ratio_lrx, result.quantization_scale,
                           result.seconds, result.backend);
    }
    return csv;
}

} // namespace rankscope::export_common
