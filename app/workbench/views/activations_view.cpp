// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/folders.h"
#include "app/workbench/plots/activations_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"

namespace rankscope {

namespace {

class ActivationsView final : public TypedView<ActivationsPlot, ActivationPicture> {
public:
    ActivationsView()
        : TypedView({QStringLiteral("activations"), QStringLiteral("Activations"),
                     QStringLiteral("activations"),
                     QStringLiteral("Show what flows into the selected layer, token by token")})
    {}
    std::size_t bytes(const Picture& picture) const override
    {
        return k_small_picture + static_cast<const ActivationPicture*>(picture.get())->values->bytes();
    }
    std::size_t comparedBytes(const Picture& picture) const override
    {
        const auto* other = static_cast<const OtherActivations*>(picture.get());
        return bytes(other->picture) + (other->difference ? other->difference->bytes() : 0);
    }
    bool comparesPictures() const override { return true; }
    Picture compare(const ViewSides&, const Picture& first, const Picture& second, Monitor&) const override
    {
        OtherActivations other;
        other.picture = std::static_pointer_cast<const ActivationPicture>(second);
        const auto& a = *static_cast<const ActivationPicture*>(first.get());
        const auto& b = *other.picture;
        if (a.activations.stretch.tokens == b.activations.stretch.tokens
            && a.activations.positions == b.activations.positions)
            other.difference = std::make_shared<const MagnitudePyramid>(difference_of(*a.values, *b.values));
        if (other.difference && other.difference->empty())
            other.difference.reset();
        return std::make_shared<const OtherActivations>(std::move(other));
    }
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<ActivationsPlot&>(plot).setOther(
            std::static_pointer_cast<const OtherActivations>(picture), name);
    }

protected:
    Result<ActivationPicture> read(const ViewRequest& request, Backend& backend,
                                   Monitor& monitor) const override
    {
        const ViewSide& side = request.side;
        if (const Status runs = side.model->architecture().runs(); !runs)
            return runs.error();
        const auto file =
            textFile(request.options.value(QStringLiteral("text")).toString(), "calibration.txt");
        if (!file)
            return file.error();
        Index tokens = request.options.value(QStringLiteral("tokens"), 128).toLongLong();
        if (const Index context = side.model->config().max_positions; context > 0)
            tokens = std::min(tokens, context);
        auto stretch = token_stretch(*side.model, toPath(*file), tokens,
                                     request.options.value(QStringLiteral("stretch")).toLongLong());
        if (!stretch)
            return stretch.error();
        const auto weights =
            side.compressed ? run_weights(side.model, side.run) : checkpoint_weights(side.model);
        auto found =
            token_activations(*side.model, *weights, request.layer, std::move(*stretch), backend, monitor);
        if (!found)
            return found.error();
        ActivationPicture picture;
        picture.values = std::make_shared<const MagnitudePyramid>(std::move(found->values));
        picture.activations = std::move(*found);
        return picture;
    }
    void show(ActivationsPlot& plot, const ViewRequest& request, const Shared& picture) const override
    {
        plot.setActivations(picture, toQString(request.layer.input_group));
    }
};

} // namespace

const View& activationsView()
{
    static const ActivationsView view;
    return view;
}

} // namespace rankscope
