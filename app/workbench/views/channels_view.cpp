// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/channel_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"

namespace rankscope {

namespace {

class ChannelsView final : public TypedView<ChannelPlot, ChannelProfile> {
public:
    ChannelsView()
        : TypedView({QStringLiteral("channels"), QStringLiteral("Channels"), QStringLiteral("channels"),
                     QStringLiteral("Show the channels of the selected layer")})
    {}
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<ChannelPlot&>(plot).setOther(std::static_pointer_cast<const ChannelProfile>(picture),
                                                 name);
    }

protected:
    Result<ChannelProfile> read(const ViewRequest& request, Backend&, Monitor& monitor) const override
    {
        const auto weight = request.side.weight(request.layer);
        if (!weight)
            return weight.error();
        monitor.throw_if_cancelled();
        const auto moments = request.side.moments(request.layer);
        if (!moments)
            return moments.error();
        return channel_profile(*weight, *moments ? &**moments : nullptr);
    }
    void show(ChannelPlot& plot, const ViewRequest& request, const Shared& profile) const override
    {
        plot.setProfile(profile, toQString(request.layer.name));
    }
};

} // namespace

const View& channelsView()
{
    static const ChannelsView view;
    return view;
}

} // namespace rankscope
