// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/overview_plot.h"
#include "app/workbench/views/registry.h"

namespace rankscope {

namespace {

class OverviewView final : public TypedView<OverviewPlot, ChannelMap> {
public:
    OverviewView()
        : TypedView({QStringLiteral("overview"), QStringLiteral("Overview"), QStringLiteral("overview"),
                     QStringLiteral("Show what flows through the whole model"), false})
    {}
    Result<Picture> computeSecond(const ViewSides& sides, Backend&, Monitor& monitor) const override
    {
        const auto map_of = [&monitor](const ViewSide& side) {
            return weight_channel_map(
                *side.model, [&side](const LinearLayer& layer) { return side.weight(layer); }, monitor);
        };
        const auto first = map_of(sides.first.side);
        if (!first)
            return first.error();
        const auto second = map_of(sides.second.side);
        if (!second)
            return second.error();
        return Picture(std::make_shared<const ChannelMapPair>(
            pair_rows(*first, *sides.first.side.model, *second, *sides.second.side.model, sides.matching)));
    }
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<OverviewPlot&>(plot).setOther(std::static_pointer_cast<const ChannelMapPair>(picture),
                                                  name);
    }

protected:
    Result<ChannelMap> read(const ViewRequest& request, Backend&, Monitor& monitor) const override
    {
        if (!request.side.calibration)
            return usage_error("The overview needs a calibration: it shows what flows into each layer", {},
                               "Give --calibration CAL; rankscope-cli calibrate makes one");
        return channel_map(*request.side.calibration, *request.side.model, monitor);
    }
    void show(OverviewPlot& plot, const ViewRequest&, const Shared& map) const override { plot.setMap(map); }
};

} // namespace

const View& overviewView()
{
    static const OverviewView view;
    return view;
}

} // namespace rankscope
