// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobs.h"
#include "app/cli/layer_stats.h"
#include "core/base/atomic_file.h"

#include <fmt/format.h>

#include <set>

namespace rankscope::cli {
namespace {

struct StatsOptions {
    std::filesystem::path path;
    std::filesystem::path calibration;
    std::filesystem::path csv;
    std::string layers;
    StatsRequest request;
    bool force = false;
};

struct AllStats {
    std::vector<LayerStats> layers;
    std::vector<BlockStats> blocks; ///< of the chosen layers; empty without a calibration, or with an old one
};

Status write_csv(const AllStats& all, const StatsOptions& options)
{
    auto folder = AtomicFolder::create(options.csv, options.force);
    if (!folder)
        return folder.error();
    if (auto written =
            write_text_file(folder->part() / "layers.csv", layer_table(all.layers, exact).csv(), false);
        !written)
        return written;
    if (const Table inputs = input_table(all.layers, exact); !inputs.empty()) {
        if (auto written = write_text_file(folder->part() / "inputs.csv", inputs.csv(), false); !written)
            return written;
    }
    if (!all.blocks.empty()) {
        const Table blocks = block_table(all.blocks, exact);
        if (auto written = write_text_file(folder->part() / "blocks.csv", blocks.csv(), false); !written)
            return written;
    }
    for (const LayerStats& stats : all.layers) {
        if (auto written = write_layer_csv(folder->part(), stats); !written)
            return written;
    }
    return folder->commit();
}

Result<std::vector<const LinearLayer*>> chosen_layers(const Model& model, const std::string& globs)
{
    std::vector<const LinearLayer*> chosen;
    for (const LinearLayer& layer : model.linears()) {
        if (globs.empty() || glob_match_any(globs, layer.name))
            chosen.push_back(&layer);
    }
    if (chosen.empty())
        return usage_error(fmt::format("no linear layer matches \"{}\"", globs), "--layers",
                           "rankscope-cli info lists the layers");
    return chosen;
}

Result<AllStats> gather(const Model& model, const CalibrationStore* calibration, const StatsOptions& options,
                        Session& session)
{
    auto chosen = chosen_layers(model, options.layers);
    if (!chosen)
        return chosen.error();
    auto backend = session.backend();
    if (!backend)
        return backend.error();
    AllStats all;
    std::set<int> blocks;
    for (const LinearLayer* layer : *chosen) {
        session.monitor().throw_if_cancelled();
        auto stats = layer_stats(*layer, model, calibration, options.request, **backend, session.monitor());
        if (!stats)
            return stats.error();
        all.layers.push_back(std::move(*stats));
        blocks.insert(layer->block);
        session.monitor().report(all.layers.size(), chosen->size(), "layer");
    }
    if (!calibration)
        return all;
    for (const int block : blocks) {
        if (auto stats = block_stats(block, *calibration)) // not in calibrations of an older version
            all.blocks.push_back(std::move(*stats));
    }
    return all;
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
    StatsOptions own = options;
    own.request.seed = session.options().seed;
    const auto all = gather(**model, calibration->get(), own, session);
    if (!all)
        return all.error();
    if (!options.csv.empty()) {
        if (auto written = write_csv(*all, options); !written)
            return written.error();
    }
    Output output;
    Json layers(Json::Array{});
    for (const LayerStats& stats : all->layers)
        layers.push_back(layer_json(stats));
    output.document.set("layers", std::move(layers));
    output.text = "Weights\n" + layer_table(all->layers, figure).text();
    if (*calibration) {
        Json blocks(Json::Array{});
        for (const BlockStats& stats : all->blocks)
            blocks.push_back(block_json(stats));
        output.document.set("blocks", std::move(blocks));
        Json channels(Json::Array{});
        std::string listed;
        for (const Index channel : persistent_outliers(all->layers, (*model)->config().hidden)) {
            channels.push_back(std::int64_t{channel});
            listed += (listed.empty() ? "" : ", ") + std::to_string(channel);
        }
        output.text += "\nInputs\n" + input_table(all->layers, figure).text();
        output.text += "Channels that reach 6 in 6 % of the tokens, in a quarter of these inputs: "
                       + (listed.empty() ? "none" : listed) + "\n";
        output.document.set("persistent_outlier_channels", std::move(channels));
        if (!all->blocks.empty())
            output.text += "\nHidden states behind a block\n" + block_table(all->blocks, figure).text();
    }
    output.document.set("csv", options.csv.empty() ? Json() : Json(options.csv.string()));
    output.document.set("process", session.process());
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
    CLI::Option* spectrum = command->add_flag(
        "--spectrum", options->request.spectrum,
        "Singular values of W, W·H^½ and of what rounding leaves, and the error at each rank");
    command
        ->add_option("--spectrum-rank", options->request.spectrum_rank,
                     "Only the K largest singular values of W, estimated: many times as fast as --spectrum")
        ->check(CLI::Range(1, 1 << 20))
        ->excludes(spectrum)
        ->type_name("K");
    command
        ->add_option("--bits", options->request.grid.bits,
                     "Bits of the grid of gain and --spectrum (default: 4)")
        ->check(CLI::Range(2, 8))
        ->type_name("B");
    command
        ->add_option("--group", options->request.grid.group,
                     "Group of the grid of gain and --spectrum (default: 128)")
        ->check(CLI::Range(-1, 1 << 20))
        ->type_name("G");
    command
        ->add_option("--csv", options->csv,
                     "Folder for tables: layers, blocks, channels, inputs, histograms, correlations, spectra")
        ->type_name("DIR");
    add_force(command, options->force);
}

} // namespace rankscope::cli
