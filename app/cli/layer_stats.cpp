// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/layer_stats.h"

#include "core/base/atomic_file.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

namespace rankscope::cli {
namespace {

constexpr Index k_top_channels = 8;
constexpr Index k_energy_curve = 64;
constexpr Index k_correlation_cells = 64;
constexpr double k_energy_share = 0.9;
constexpr double k_outlier_token_share = 0.06;
constexpr double k_outlier_layer_share = 0.25;
constexpr std::size_t k_shown_entries = 3;

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

Json vector_json(const VectorD& values)
{
    Json list(Json::Array{});
    for (Index i = 0; i < values.size(); ++i)
        list.push_back(values(i));
    return list;
}

double largest(const ActivationStatistics& statistics)
{
    return statistics.channels() == 0 || statistics.tokens() == 0 ? 0.0 : statistics.max_abs().maxCoeff();
}

/// What is said of some kind of tokens.
Json tokens_json(const ActivationStatistics& statistics)
{
    Json json;
    json.set("tokens", statistics.tokens());
    json.set("rms", statistics.tensor_rms());
    json.set("max_abs", largest(statistics));
    json.set("crest", statistics.crest());
    json.set("mean_token_crest", statistics.mean_token_crest());
    json.set("max_token_crest", statistics.max_token_crest());
    json.set("kurtosis", statistics.tensor_kurtosis());
    json.set("median_abs", statistics.quantile_abs(0.5));
    json.set("quantile_99_abs", statistics.quantile_abs(0.99));
    json.set("quantile_99_9_abs", statistics.quantile_abs(0.999));
    return json;
}

Json thresholds_json(const ActivationStatistics& statistics)
{
    Json list(Json::Array{});
    for (std::size_t i = 0; i < statistics.thresholds().size(); ++i) {
        Json entry;
        entry.set("threshold", statistics.thresholds()[i]);
        entry.set("channels", std::int64_t{statistics.outlier_channels(i)});
        entry.set("channels_in_6_percent_of_tokens",
                  std::int64_t{statistics.outlier_channels_in(k_outlier_token_share, i)});
        list.push_back(std::move(entry));
    }
    return list;
}

Json input_json(const LayerStats::Input& input)
{
    const ActivationStatistics& all = input.all;
    Json json = tokens_json(all);
    json.set("outlier_channels", std::int64_t{all.outlier_channels()});
    json.set("thresholds", thresholds_json(all));
    Json relative;
    for (const int factor : {3, 4, 10, 20})
        relative.set("rms_over_" + std::to_string(factor) + "_medians",
                     std::int64_t{all.relative_outliers(factor)});
    json.set("relative_outliers", std::move(relative));
    json.set("top_1_percent_energy", all.top_energy_share(0.01));
    json.set("top_energy_curve", vector_json(all.top_energy_curve(k_energy_curve)));
    json.set("off_diagonal_share", input.off_diagonal);
    if (input.first && input.later) {
        json.set("first_tokens", tokens_json(*input.first));
        json.set("later_tokens", tokens_json(*input.later));
    }
    return json;
}

Json summary_json(const VectorD& values)
{
    const SpectrumSummary summary = summarize_spectrum(values);
    Json json;
    json.set("stable_rank", summary.stable_rank);
    json.set("effective_rank", summary.effective_rank);
    json.set("participation", summary.participation);
    json.set("rank_for_90_percent", std::int64_t{summary.rank_90});
    json.set("rank_for_99_percent", std::int64_t{summary.rank_99});
    return json;
}

Json spectrum_json(const LayerSpectrum& spectrum)
{
    Json json;
    Json summaries;
    for (const auto& [name, values] : {std::pair{"weight", &spectrum.weight},
                                       {"weighted", &spectrum.weighted},
                                       {"residual", &spectrum.residual},
                                       {"weighted_residual", &spectrum.weighted_residual}}) {
        json.set(name, vector_json(*values));
        if (values->size() > 0)
            summaries.set(name, summary_json(*values));
    }
    json.set("summaries", std::move(summaries));
    json.set("rank_for_90_percent",
             std::int64_t{LayerSpectrum::rank_for_energy(spectrum.weight, k_energy_share)});
    json.set("predicted_error_without_rank", spectrum.predicted_error(0));
    return json;
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

Status write_table(const std::filesystem::path& folder, const char* kind, const std::string& layer,
                   const Table& table)
{
    return write_text_file(folder / kind / (layer + ".csv"), table.csv(), false);
}

/// Bins from the first to the last that holds something.
Table histogram_table(const ActivationStatistics& statistics)
{
    const auto& bins = statistics.histogram();
    const auto holds = [](std::uint64_t count) { return count > 0; };
    const auto begin = std::find_if(bins.begin(), bins.end(), holds) - bins.begin();
    const auto end = bins.rend() - std::find_if(bins.rbegin(), bins.rend(), holds);
    Table table({"from_abs", "to_abs", "entries"});
    table.add({"0", "0", std::to_string(statistics.zeros())});
    for (auto bin = begin; bin < end; ++bin)
        table.add({exact(ActivationStatistics::histogram_edge(static_cast<int>(bin))),
                   exact(ActivationStatistics::histogram_edge(static_cast<int>(bin) + 1)),
                   std::to_string(bins[static_cast<std::size_t>(bin)])});
    return table;
}

Table matrix_table(const MatrixD& matrix)
{
    std::vector<std::string> header = {"cell"};
    for (Index j = 0; j < matrix.cols(); ++j)
        header.push_back(std::to_string(j));
    Table table(header);
    for (Index i = 0; i < matrix.rows(); ++i) {
        std::vector<std::string> row = {std::to_string(i)};
        for (Index j = 0; j < matrix.cols(); ++j)
            row.push_back(exact(matrix(i, j)));
        table.add(std::move(row));
    }
    return table;
}

Status write_input_csv(const std::filesystem::path& folder, const std::string& layer,
                       const LayerStats::Input& input)
{
    const ActivationStatistics& all = input.all;
    const VectorD rms = all.rms();
    const VectorD mean_abs = all.mean_abs();
    const VectorD kurtosis = all.channel_kurtosis();
    const VectorD above = all.threshold_counts();
    const Table inputs = columns("channel", {{"mean", &all.mean()},
                                             {"rms", &rms},
                                             {"mean_abs", &mean_abs},
                                             {"minimum", &all.minimum()},
                                             {"maximum", &all.maximum()},
                                             {"kurtosis", &kurtosis},
                                             {"tokens_above_6", &above}});
    if (auto written = write_table(folder, "inputs", layer, inputs); !written)
        return written;
    if (auto written = write_table(folder, "histogram", layer, histogram_table(all)); !written)
        return written;
    return write_table(folder, "correlation", layer, matrix_table(input.correlation));
}

} // namespace

Result<LayerStats> layer_stats(const LinearLayer& layer, const Model& model,
                               const CalibrationStore* calibration, const StatsRequest& request,
                               Backend& backend, Monitor& monitor)
{
    auto weight = model.weight(layer);
    if (!weight)
        return weight.error();
    LayerStats stats;
    stats.layer = &layer;
    stats.weight = weight_statistics(*weight);
    Moments moments;
    if (calibration) {
        auto read = layer_moments(*calibration, model, layer);
        if (!read)
            return read.error();
        moments = std::move(*read);
        auto all = calibration->statistics(layer.input_group);
        if (!all)
            return all.error();
        LayerStats::Input input{std::move(*all),
                                {},
                                {},
                                off_diagonal_share(moments.hessian),
                                correlation_map(moments.hessian, k_correlation_cells)};
        if (auto first = calibration->statistics(layer.input_group, TokenKind::First))
            input.first = std::move(*first);
        if (auto later = calibration->statistics(layer.input_group, TokenKind::Later))
            input.later = std::move(*later);
        stats.input = std::move(input);
    }
    const Moments* given = calibration ? &moments : nullptr;
    stats.profile = channel_profile(*weight, given);
    stats.top_energy = top_share(stats.profile.weighted_energy);
    stats.gain_db = quantization_gain(*weight, given, request.grid, backend);
    if (request.spectrum)
        stats.spectrum = layer_spectrum(*weight, given, request.grid, backend, monitor);
    else if (request.spectrum_rank > 0)
        stats.leading =
            leading_singular_values(backend.upload(*weight), request.spectrum_rank, request.seed, backend);
    return stats;
}

Result<BlockStats> block_stats(int block, const CalibrationStore& calibration)
{
    auto all = calibration.block_output(block);
    if (!all)
        return all.error();
    auto first = calibration.block_output(block, TokenKind::First);
    if (!first)
        return first.error();
    auto later = calibration.block_output(block, TokenKind::Later);
    if (!later)
        return later.error();
    return BlockStats{block, std::move(*all), std::move(first->statistics), std::move(later->statistics)};
}

Json layer_json(const LayerStats& stats)
{
    Json json;
    json.set("layer", stats.layer->name);
    json.set("role", short_name(stats.layer->role));
    json.set("block", stats.layer->block);
    json.set("out", std::int64_t{stats.layer->out});
    json.set("in", std::int64_t{stats.layer->in});
    json.set("max_abs", stats.weight.max_abs);
    json.set("rms", stats.weight.rms);
    json.set("kurtosis", stats.weight.kurtosis);
    json.set("incoherence", stats.weight.incoherence);
    json.set("largest_row_max", stats.weight.row_max.size() > 0 ? stats.weight.row_max.maxCoeff() : 0.0);
    json.set("least_row_max", stats.weight.row_max.size() > 0 ? stats.weight.row_max.minCoeff() : 0.0);
    json.set("top8_energy", stats.top_energy);
    json.set("quantization_gain_db", stats.gain_db);
    if (stats.input)
        json.set("activations", input_json(*stats.input));
    if (stats.spectrum)
        json.set("spectrum", spectrum_json(*stats.spectrum));
    if (stats.leading.size() > 0)
        json.set("leading_singular_values", vector_json(stats.leading));
    return json;
}

Json block_json(const BlockStats& stats)
{
    Json json = tokens_json(stats.all.statistics);
    json.set("block", stats.block);
    json.set("first_tokens", tokens_json(stats.first));
    json.set("later_tokens", tokens_json(stats.later));
    const auto list = [](const std::vector<StrongEntry>& entries) {
        Json array(Json::Array{});
        for (const StrongEntry& entry : entries) {
            Json item;
            item.set("value", entry.value);
            item.set("window", std::int64_t{entry.window});
            item.set("position", std::int64_t{entry.position});
            item.set("channel", std::int64_t{entry.channel});
            array.push_back(std::move(item));
        }
        return array;
    };
    json.set("strongest", list(stats.all.strongest));
    json.set("massive", list(stats.all.massive()));
    return json;
}

std::vector<Index> persistent_outliers(const std::vector<LayerStats>& all, Index hidden)
{
    std::map<std::string, const ActivationStatistics*> inputs; // q, k and v share one
    for (const LayerStats& stats : all)
        if (stats.input && stats.layer->in == hidden)
            inputs[stats.layer->input_group] = &stats.input->all;
    std::vector<Index> found;
    for (Index channel = 0; channel < hidden && !inputs.empty(); ++channel) {
        std::size_t count = 0;
        for (const auto& [group, statistics] : inputs) {
            const double least = k_outlier_token_share * static_cast<double>(statistics->tokens());
            count += statistics->threshold_counts()[channel] >= least ? 1U : 0U;
        }
        if (static_cast<double>(count) >= k_outlier_layer_share * static_cast<double>(inputs.size()))
            found.push_back(channel);
    }
    return found;
}

Table layer_table(const std::vector<LayerStats>& all, NumberText number)
{
    std::vector<std::string> header = {"layer", "role",    "out",      "in",           "max |w|",
                                       "rms",   "max/rms", "kurtosis", "top-8 energy", "gain dB"};
    const bool spectrum = !all.empty() && all.front().spectrum;
    const bool leading = !all.empty() && all.front().leading.size() > 0;
    if (spectrum)
        header.insert(header.end(), {"stable rank", "rank for 90 %", "error at r=0", "r=8", "r=32"});
    if (leading)
        header.insert(header.end(), {"largest σ", "stable rank"});
    Table table(header);
    for (const LayerStats& stats : all) {
        const WeightStatistics& weight = stats.weight;
        std::vector<std::string> row = {stats.layer->name,
                                        std::string(short_name(stats.layer->role)),
                                        std::to_string(stats.layer->out),
                                        std::to_string(stats.layer->in),
                                        number(weight.max_abs),
                                        number(weight.rms),
                                        number(weight.incoherence),
                                        number(weight.kurtosis),
                                        number(stats.top_energy),
                                        number(stats.gain_db)};
        if (stats.spectrum) {
            const Index size = stats.spectrum->weight.size();
            const SpectrumSummary summary = summarize_spectrum(stats.spectrum->weight);
            row.push_back(number(summary.stable_rank));
            row.push_back(std::to_string(summary.rank_90));
            for (const Index rank : {Index{0}, Index{8}, Index{32}})
                row.push_back(number(stats.spectrum->predicted_error(std::min(rank, size))));
        }
        if (stats.leading.size() > 0) {
            const double energy = weight.rms * weight.rms * static_cast<double>(stats.layer->out)
                                  * static_cast<double>(stats.layer->in);
            row.push_back(number(stats.leading[0]));
            row.push_back(
                number(stats.leading[0] > 0.0 ? energy / (stats.leading[0] * stats.leading[0]) : 0.0));
        }
        table.add(std::move(row));
    }
    return table;
}

Table input_table(const std::vector<LayerStats>& all, NumberText number)
{
    Table table({"input of", "roles", "channels", "rms", "max |x|", "crest", "crest of a token", "kurtosis",
                 "channels ≥ 6", "rms > 3 medians", "> 10", "> 20", "energy of top 1 %", "off-diagonal",
                 "first/later rms"});
    std::map<std::string, std::string> roles;
    for (const LayerStats& stats : all) {
        std::string& listed = roles[stats.layer->input_group];
        listed += (listed.empty() ? "" : " ") + std::string(short_name(stats.layer->role));
    }
    for (const LayerStats& stats : all) {
        const auto listed = roles.find(stats.layer->input_group);
        if (!stats.input || listed == roles.end())
            continue;
        const LayerStats::Input& input = *stats.input;
        const double later = input.later ? input.later->tensor_rms() : 0.0;
        std::vector<std::string> row = {stats.layer->input_group,
                                        listed->second,
                                        std::to_string(stats.layer->in),
                                        number(input.all.tensor_rms()),
                                        number(largest(input.all)),
                                        number(input.all.crest()),
                                        number(input.all.mean_token_crest()),
                                        number(input.all.tensor_kurtosis()),
                                        std::to_string(input.all.outlier_channels())};
        for (const double factor : {3.0, 10.0, 20.0})
            row.push_back(std::to_string(input.all.relative_outliers(factor)));
        row.push_back(number(input.all.top_energy_share(0.01)));
        row.push_back(number(input.off_diagonal));
        row.push_back(number(later > 0.0 ? input.first->tensor_rms() / later : std::nan("")));
        roles.erase(listed);
        table.add(std::move(row));
    }
    return table;
}

Table block_table(const std::vector<BlockStats>& all, NumberText number)
{
    Table table({"block output", "rms", "median |x|", "first token rms", "later rms", "largest", "2nd", "3rd",
                 "at window:position, channel", "massive"});
    for (const BlockStats& stats : all) {
        std::vector<std::string> row = {std::to_string(stats.block),
                                        number(stats.all.statistics.tensor_rms()),
                                        number(stats.all.statistics.quantile_abs(0.5)),
                                        number(stats.first.tensor_rms()), number(stats.later.tensor_rms())};
        const auto& strongest = stats.all.strongest;
        for (std::size_t i = 0; i < k_shown_entries; ++i)
            row.push_back(i < strongest.size() ? number(strongest[i].value) : std::string());
        row.push_back(strongest.empty()
                          ? std::string()
                          : std::to_string(strongest[0].window) + ":" + std::to_string(strongest[0].position)
                                + ", " + std::to_string(strongest[0].channel));
        row.push_back(std::to_string(stats.all.massive().size()));
        table.add(std::move(row));
    }
    return table;
}

Status write_layer_csv(const std::filesystem::path& folder, const LayerStats& stats)
{
    const ChannelProfile& profile = stats.profile;
    const std::string& name = stats.layer->name;
    const Table channels = columns("channel", {{"weight_max_abs", &profile.weight_max_abs},
                                               {"weight_rms", &profile.weight_rms},
                                               {"hessian_diagonal", &profile.hessian_diagonal},
                                               {"activation_max_abs", &profile.activation_max_abs},
                                               {"weighted_energy", &profile.weighted_energy}});
    if (auto written = write_table(folder, "channels", name, channels); !written)
        return written;
    if (stats.input) {
        if (auto written = write_input_csv(folder, name, *stats.input); !written)
            return written;
    }
    if (!stats.spectrum)
        return {};
    const LayerSpectrum& spectrum = *stats.spectrum;
    const Table values = columns("index", {{"weight", &spectrum.weight},
                                           {"weighted", &spectrum.weighted},
                                           {"residual", &spectrum.residual},
                                           {"weighted_residual", &spectrum.weighted_residual}});
    return write_table(folder, "spectrum", name, values);
}

} // namespace rankscope::cli
