// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/spectrum_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"

namespace rankscope {

namespace {

class SpectrumView final : public TypedView<SpectrumPlot, LayerSpectrum> {
public:
    SpectrumView()
        : TypedView({QStringLiteral("spectrum"), QStringLiteral("Spectrum"), QStringLiteral("spectrum"),
                     QStringLiteral("Show the singular values of the selected layer")})
    {}
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<SpectrumPlot&>(plot).setOther(std::static_pointer_cast<const LayerSpectrum>(picture),
                                                  name);
    }

protected:
    Result<LayerSpectrum> read(const ViewRequest& request, Backend& backend, Monitor& monitor) const override
    {
        const auto weight = request.side.weight(request.layer);
        if (!weight)
            return weight.error();
        const auto moments = request.side.moments(request.layer);
        if (!moments)
            return moments.error();
        return layer_spectrum(*weight, *moments ? &**moments : nullptr, request.grid, backend, monitor);
    }
    void show(SpectrumPlot& plot, const ViewRequest& request, const Shared& spectrum) const override
    {
        plot.setSpectrum(spectrum, toQString(request.layer.name), request.layer.out, request.layer.in);
        plot.setRank(request.rank);
    }
};

} // namespace

const View& spectrumView()
{
    static const SpectrumView view;
    return view;
}

} // namespace rankscope
