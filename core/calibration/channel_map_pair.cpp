// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/channel_map_pair.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace rankscope {
namespace {

constexpr double k_nan = std::numeric_limits<double>::quiet_NaN();

/// What the layers of one input group add up to.
struct Sums {
    VectorD largest;
    VectorD squares;
    double outputs = 0.0;
};

void add(const Matrix& weight, Sums& sums)
{
    if (sums.largest.size() == 0) {
        sums.largest = VectorD::Zero(weight.cols());
        sums.squares = VectorD::Zero(weight.cols());
    }
    for (Index i = 0; i < weight.rows(); ++i) { // row by row, as it lies in memory
        const auto row = weight.row(i).transpose().cast<double>();
        sums.largest = sums.largest.cwiseMax(row.cwiseAbs());
        sums.squares += row.cwiseAbs2();
    }
    sums.outputs += static_cast<double>(weight.rows());
}

VectorD log_ratio(const VectorD& first, const VectorD& second, double& largest)
{
    VectorD ratio = VectorD::Constant(first.size(), k_nan);
    if (first.size() != second.size())
        return ratio;
    for (Index j = 0; j < first.size(); ++j) {
        const double here = std::log2(second[j] / first[j]);
        if (!std::isfinite(here))
            continue;
        ratio[j] = here;
        largest = std::max(largest, std::abs(here));
    }
    return ratio;
}

} // namespace

Result<ChannelMap> weight_channel_map(const Model& model, const WeightReader& weight, Monitor& monitor)
{
    std::map<std::string, Sums, std::less<>> groups;
    std::uint64_t done = 0;
    for (const LinearLayer& layer : model.linears()) {
        monitor.throw_if_cancelled();
        monitor.report(done++, model.linears().size(), "layer");
        const auto values = weight(layer);
        if (!values)
            return values.error();
        Sums& sums = groups[layer.input_group];
        if (sums.largest.size() != 0 && sums.largest.size() != values->cols())
            return bad_input("Layers that share an input differ in its size", layer.name);
        add(*values, sums);
    }
    ChannelMap map;
    for (const LinearLayer& layer : model.linears()) {
        if (layer.name != layer.input_group)
            continue;
        const Sums& sums = groups.at(layer.name);
        ChannelMap::Row row{layer.name, layer.block, layer.role, sums.largest,
                            (sums.squares / std::max(sums.outputs, 1.0)).cwiseSqrt()};
        if (row.rms.size() == 0)
            continue;
        row.median_max_abs = median(row.max_abs);
        row.median_rms = median(row.rms);
        map.rows.push_back(std::move(row));
    }
    return map;
}

ChannelMapPair pair_rows(const ChannelMap& first, const Model& first_model, const ChannelMap& second,
                         const Model& second_model, const TensorMatching& matching)
{
    std::map<std::string_view, const ChannelMap::Row*> others;
    for (const ChannelMap::Row& row : second.rows)
        others.emplace(row.group, &row);
    ChannelMapPair pair;
    for (const ChannelMap::Row& row : first.rows) {
        const LinearLayer* layer = first_model.find_linear(row.group);
        const LinearLayer* partner = layer ? partner_layer(matching, second_model, *layer) : nullptr;
        const auto found = partner ? others.find(partner->input_group) : others.end();
        if (found == others.end()) {
            pair.only_first.push_back(row.group);
            continue;
        }
        const ChannelMap::Row& other = *found->second;
        ChannelMap::Row ratio{row.group, row.block, row.role,
                              log_ratio(row.max_abs, other.max_abs, pair.largest_max_abs),
                              log_ratio(row.rms, other.rms, pair.largest_rms)};
        pair.first.rows.push_back(row);
        pair.second.rows.push_back(other);
        pair.log_ratio.rows.push_back(std::move(ratio));
        others.erase(found);
    }
    for (const ChannelMap::Row& row : second.rows)
        if (others.contains(row.group))
            pair.only_second.push_back(row.group);
    return pair;
}

} // namespace rankscope
