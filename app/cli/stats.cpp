// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/table.h"
#include "core/base/atomic_file.h"
#include "core/plan/layer_spectrum.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace rankscope::cli {
namespace {

struct StatsOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::filesystem::path csv;
    std::string layers;
    bool spectrum = false;
    UniformGrid grid;
    bool force = false;
};

/// The figures of one layer; those of activations and spectrum where they were asked for.
struct LayerStats {
    const LinearLayer* layer = nullptr;
    double max_abs = 0.0;
    double rms = 0.0;
    double kurtosis = 0.0;
    double top_energy = 0.0; ///< share of the weighted energy that the 8 strongest channels carry
    ChannelProfile profile;
    std::optional<ActivationStatistics> activations;
    std::optional<LayerSpectrum> spectrum;
};

constexpr Index k_top_channels = 8;
constexpr double k_energy_share = 0.9;

double top_share(const VectorD& energy)
{
    const double total = energy.sum();
    if (total <= 0.0)
        return 0.0;
    std::vector<double> sorted(energy.data(), energy.data() + energy.size());
    const auto count = static_cast<std::ptrdiff_t>(std::min<Index>(k_top_channels, energy.size()));
    std::partial_sort(sorted.begin(), sorted.begin() + count, sorted.end(), std::greater<>());
    double top = 0.0;
    for (std::ptrdiff_t i = 0; i < count; ++i)
        top += sorted[static_cast<std::size_t>(i)];
    return top / total;
}

void weight_figures(const Matrix& weight, LayerStats& stats)
{
    const auto values = weight.cast<double>().array();
    const double count = static_cast<double>(weight.size());
    const double mean = values.sum() / count;
    const double second = (values - mean).square().sum() / count;
    const double fourth = (values - mean).square().square().sum() / count;
    stats.max_abs = static_cast<double>(weight.cwiseAbs().maxCoeff());
    stats.rms = std::sqrt(values.square().sum() / count);
    stats.kurtosis = second > 0.0 ? fourth / (second * second) : 0.0;
}

Result<LayerStats> stats_of(const LinearLayer& layer, const Model& model, const CalibrationStore* calibration,
                            const StatsOptions& options, Session& session)
{
    auto weight = model.weight(layer);
    if (!weight)
        return weight.error();
    LayerStats stats;
    stats.layer = &layer;
    weight_figures(*weight, stats);
    Moments moments;
    if (calibration) {
        auto read = calibration->moments(layer.input_group);
        if (!read)
            return read.error();
        moments = std::move(*read);
        auto activations = calibration->statistics(layer.input_group);
        if (!activations)
            return activations.error();
        stats.activations = std::move(*activations);
    }
    const Moments* given = calibration ? &moments : nullptr;
    stats.profile = channel_profile(*weight, given);
    stats.top_energy = top_share(stats.profile.weighted_energy);
    if (options.spectrum) {
        auto backend = session.backend();
        if (!backend)
            return backend.error();
        stats.spectrum = layer_spectrum(*weight, given, options.grid, **backend, session.monitor());
    }
    return stats;
}

Json vector_json(const VectorD& values)
{
    Json list(Json::Array{});
    for (Index i = 0; i < values.size(); ++i)
        list.push_back(values(i));
    return list;
}

Json spectrum_json(const LayerSpectrum& spectrum)
{
    Json json;
    json.set("weight", vector_json(spectrum.weight));
    json.set("weighted", vector_json(spectrum.weighted));
    json.set("residual", vector_json(spectrum.residual));
    json.set("weighted_residual", vector_json(spectrum.weighted_residual));
    json.set("rank_for_90_percent",
             std::int64_t{LayerSpectrum::rank_for_energy(spectrum.weight, k_energy_share)});
    json.set("predicted_error_without_rank", spectrum.predicted_error(0));
    return json;
}

Json stats_json(const LayerStats& stats)
{
    Json json;
    json.set("layer", stats.layer->name);
    json.set("role", short_name(stats.layer->role));
    json.set("block", stats.layer->block);
    json.set("out", std::int64_t{stats.layer->out});
    json.set("in", std::int64_t{stats.layer->in});
    json.set("max_abs", stats.max_abs);
    json.set("rms", stats.rms);
    json.set("kurtosis", stats.kurtosis);
    json.set("top8_energy", stats.top_energy);
    if (stats.activations) {
        const ActivationStatistics& activations = *stats.activations;
        Json entry;
        entry.set("tokens", activations.tokens());
        entry.set("rms", activations.tensor_rms());
        entry.set("crest", activations.crest());
        entry.set("kurtosis", activations.tensor_kurtosis());
        entry.set("outlier_channels", std::int64_t{activations.outlier_channels()});
        entry.set("relative_outliers", std::int64_t{activations.relative_outliers(4.0)});
        entry.set("top_1_percent_energy", activations.top_energy_share(0.01));
        entry.set("quantile_99_9_abs", activations.quantile_abs(0.999));
        json.set("activations", std::move(entry));
    }
    if (stats.spectrum)
        json.set("spectrum", spectrum_json(*stats.spectrum));
    return json;
}

Table stats_table(const std::vector<LayerStats>& all, const StatsOptions& options,
                  std::string (*number)(double))
{
    std::vector<std::string> header = {"layer", "role",    "out",      "in",          "max |w|",
                                       "rms",   "max/rms", "kurtosis", "top-8 energy"};
    const bool activations = !options.calibration.empty();
    if (activations)
        header.insert(header.end(), {"x rms", "x crest", "x kurtosis", "x outliers"});
    if (options.spectrum)
        header.insert(header.end(), {"rank for 90 %", "error at r=0", "r=8", "r=32"});
    Table table(header);
    for (const LayerStats& stats : all) {
        std::vector<std::string> row = {stats.layer->name,
                                        std::string(short_name(stats.layer->role)),
                                        std::to_string(stats.layer->out),
                                        std::to_string(stats.layer->in),
                                        number(stats.max_abs),
                                        number(stats.rms),
                                        number(stats.rms > 0.0 ? stats.max_abs / stats.rms : 0.0),
                                        number(stats.kurtosis),
                                        number(stats.top_energy)};
        if (stats.activations) {
            row.push_back(number(stats.activations->tensor_rms()));
            row.push_back(number(stats.activations->crest()));
            row.push_back(number(stats.activations->tensor_kurtosis()));
            row.push_back(std::to_string(stats.activations->outlier_channels()));
        }
        if (stats.spectrum) {
            const Index size = stats.spectrum->weight.size();
            row.push_back(
                std::to_string(LayerSpectrum::rank_for_energy(stats.spectrum->weight, k_energy_share)));
            for (const Index rank : {Index{0}, Index{8}, Index{32}})
                row.push_back(number(stats.spectrum->predicted_error(std::min(rank, size))));
        }
        table.add(std::move(row));
    }
    return table;
}

/// Columns of unequal length; missing cells stay empty.
Table columns(const std::string& first, const std::vector<std::pair<std::string, const VectorD*>>& values)
{
    std::vector<std::string> header = {first};
    Index length = 0;
    for (const auto& [name, column] : values) {
        header.push_back(name);
        length = std::max(length, column->size());
    }
    Table table(header);
    for (Index i = 0; i < length; ++i) {
        std::vector<std::string> row = {std::to_string(i)};
        for (const auto& [name, column] : values)
            row.push_back(i < column->size() ? exact((*column)(i)) : std::string());
        table.add(std::move(row));
    }
    return table;
}

Status write_layer_csv(const std::filesystem::path& folder, const LayerStats& stats)
{
    const ChannelProfile& profile = stats.profile;
    const Table channels = columns("channel", {{"weight_max_abs", &profile.weight_max_abs},
                                               {"weight_rms", &profile.weight_rms},
                                               {"hessian_diagonal", &profile.hessian_diagonal},
                                               {"activation_max_abs", &profile.activation_max_abs},
                                               {"weighted_energy", &profile.weighted_energy}});
    if (auto written =
            write_text_file(folder / "channels" / (stats.layer->name + ".csv"), channels.csv(), false);
        !written || !stats.spectrum)
        return written;
    const LayerSpectrum& spectrum = *stats.spectrum;
    const Table values = columns("index", {{"weight", &spectrum.weight},
                                           {"weighted", &spectrum.weighted},
                                           {"residual", &spectrum.residual},
                                           {"weighted_residual", &spectrum.weighted_residual}});
    return write_text_file(folder / "spectrum" / (stats.layer->name + ".csv"), values.csv(), false);
}

Status write_csv(const std::vector<LayerStats>& all, const StatsOptions& options)
{
    auto folder = AtomicFolder::create(options.csv, options.force);
    if (!folder)
        return folder.error();
    const Table table = stats_table(all, options, exact);
    if (auto written = write_text_file(folder->part() / "layers.csv", table.csv(), false); !written)
        return written;
    for (const LayerStats& stats : all) {
        if (auto written = write_layer_csv(folder->part(), stats); !written)
            return written;
    }
    return folder->commit();
}

Result<Output> stats_command(const StatsOptions& options, Session& session)
{
    auto model = Model::open(options.path);
    if (!model)
        return model.error();
    auto calibration = open_calibration(options.calibration);
    if (!calibration)
        return calibration.error();
    if (*calibration) {
        if (auto fits = (*calibration)->check(**model); !fits)
            return fits.error();
    }
    std::vector<const LinearLayer*> chosen;
    for (const LinearLayer& layer : (*model)->linears()) {
        if (options.layers.empty() || glob_match_any(options.layers, layer.name))
            chosen.push_back(&layer);
    }
    if (chosen.empty())
        return usage_error(fmt::format("no linear layer matches \"{}\"", options.layers), "--layers",
                           "rankscope-cli info lists the layers");
    std::vector<LayerStats> all;
    Json list(Json::Array{});
    for (const LinearLayer* layer : chosen) {
        session.monitor().throw_if_cancelled();
        auto stats = stats_of(*layer, **model, calibration->get(), options, session);
        if (!stats)
            return stats.error();
        list.push_back(stats_json(*stats));
        all.push_back(std::move(*stats));
        session.monitor().report(all.size(), chosen.size(), "layer");
    }
    if (!options.csv.empty()) {
        if (auto written = write_csv(all, options); !written)
            return written.error();
    }
    Output output;
    output.document.set("layers", std::move(list));
    output.document.set("csv", options.csv.empty() ? Json() : Json(options.csv.string()));
    output.document.set("process", session.process());
    output.text = stats_table(all, options, figure).text();
    return output;
}

} // namespace

void add_stats(Program& program)
{
    auto options = std::make_shared<StatsOptions>();
    CLI::App* command = program.add("stats", "Statistics of each layer's weights, inputs and spectrum",
                                    [options](Session& session) { return stats_command(*options, session); });
    add_path(command, options->path);
    command->add_option("--calibration", options->calibration, "Calibration: adds the inputs' statistics")
        ->type_name("CAL");
    command->add_option("--layers", options->layers, "Comma-separated patterns (default: all)")
        ->type_name("GLOBS");
    command->add_flag("--spectrum", options->spectrum,
                      "Singular values of W, W·H^½ and of what rounding leaves, and the error at each rank");
    command->add_option("--bits", options->grid.bits, "Bits of the grid of --spectrum (default: 4)")
        ->check(CLI::Range(2, 8))
        ->type_name("B");
    command->add_option("--group", options->grid.group, "Group of the grid of --spectrum (default: 128)")
        ->check(CLI::Range(-1, 1 << 20))
        ->type_name("G");
    command->add_option("--csv", options->csv, "Folder for tables: layers, channels, spectra")
        ->type_name("DIR");
    add_force(command, options->force);
}

} // namespace rankscope::cli
