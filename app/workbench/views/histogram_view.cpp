// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/histogram_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"

namespace rankscope {

namespace {

class HistogramView final : public TypedView<HistogramPlot, LayerHistogram> {
public:
    HistogramView()
        : TypedView(
            {QStringLiteral("histogram"), QStringLiteral("Histogram"), QStringLiteral("histogram"),
             QStringLiteral("Show the values of the selected layer and the levels they are rounded to")})
    {}
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<HistogramPlot&>(plot).setOther(std::static_pointer_cast<const LayerHistogram>(picture),
                                                   name);
    }

protected:
    Result<LayerHistogram> read(const ViewRequest& request, Backend& backend, Monitor& monitor) const override
    {
        const auto weight = request.side.weight(request.layer);
        if (!weight)
            return weight.error();
        monitor.throw_if_cancelled();
        const auto decomposition = request.side.decomposition(request.layer);
        if (!decomposition)
            return decomposition.error();
        LayerHistogramOptions options;
        const auto choice = [&request](const char* name) {
            return request.options.value(QLatin1String(name), -1).toLongLong();
        };
        // A layer with fewer rows or groups is shown whole.
        options.choice.row = choice("row") < request.layer.out ? choice("row") : -1;
        options.choice.group =
            choice("group") < request.grid.groups(request.layer.in) || *decomposition ? choice("group") : -1;
        options.unit =
            request.options.value(QStringLiteral("steps")).toBool() ? ValueUnit::Steps : ValueUnit::Plain;
        options.rotated = request.options.value(QStringLiteral("rotated")).toBool();
        options.name = request.layer.name;
        const Decomposition* made = *decomposition ? &**decomposition : nullptr;
        if (made
            && (made->quantized.codebook == Codebook::E8P
                || options.choice.group >= made->quantized.scales.cols()))
            options.choice.group = -1;
        return layer_histogram(*weight, made, request.grid, options, backend, monitor);
    }
    void show(HistogramPlot& plot, const ViewRequest& request, const Shared& histogram) const override
    {
        plot.setHistogram(histogram, toQString(request.layer.name));
    }
};

} // namespace

const View& histogramView()
{
    static const HistogramView view;
    return view;
}

} // namespace rankscope
