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
    bool compares() const override { return false; }
    void drawOther(PlotView&, const QString&, const Picture&) const override {}

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
