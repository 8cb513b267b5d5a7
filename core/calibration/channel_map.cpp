// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/channel_map.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace rankscope {

Result<ChannelMap> channel_map(const CalibrationStore& store, const Model& model, Monitor& monitor)
{
    const std::set<std::string, std::less<>> known(store.groups().begin(), store.groups().end());
    ChannelMap map;
    for (const LinearLayer& layer : model.linears()) {
        if (layer.name != layer.input_group || !known.contains(layer.name))
            continue;
        monitor.throw_if_cancelled();
        const auto statistics = store.statistics(layer.name);
        if (!statistics)
            return statistics.error();
        ChannelMap::Row row{layer.name, layer.block, layer.role, statistics->max_abs(), statistics->rms()};
        if (row.rms.size() == 0)
            continue;
        row.median_max_abs = median(row.max_abs);
        row.median_rms = median(row.rms);
        map.rows.push_back(std::move(row));
    }
    return map;
}

std::vector<Index> persistent_channels(std::span<const VectorD* const> rows, double factor, double share)
{
    if (rows.empty() || rows.front()->size() == 0)
        return {};
    const Index channels = rows.front()->size();
    std::vector<Index> often(static_cast<std::size_t>(channels), 0);
    for (const VectorD* row : rows) {
        const double border = factor * median(*row);
        for (Index j = 0; j < channels; ++j)
            often[static_cast<std::size_t>(j)] += (*row)[j] > border ? 1 : 0;
    }
    std::vector<Index> order(static_cast<std::size_t>(channels));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
        return often[static_cast<std::size_t>(a)] > often[static_cast<std::size_t>(b)];
    });
    const auto end = std::find_if(order.begin(), order.end(), [&](Index j) {
        return static_cast<double>(often[static_cast<std::size_t>(j)])
               < share * static_cast<double>(rows.size());
    });
    order.erase(end, order.end());
    return order;
}

} // namespace rankscope
