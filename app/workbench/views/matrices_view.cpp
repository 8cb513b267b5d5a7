// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"
#include "core/plan/layer_parts.h"

namespace rankscope {

namespace {

LayerMatrices::Part comparedPart(const ViewRequest& request)
{
    const auto part =
        LayerMatrices::partIds().indexOf(request.options.value(QStringLiteral("part")).toString());
    return part < 0 ? LayerMatrices::Weight : static_cast<LayerMatrices::Part>(part);
}

std::shared_ptr<const MagnitudePyramid> drawable(MagnitudePyramid values)
{
    return values.empty() ? nullptr : std::make_shared<const MagnitudePyramid>(std::move(values));
}

class MatricesView final : public TypedView<MatricesPlot, LayerMatrices> {
public:
    MatricesView()
        : TypedView({QStringLiteral("matrices"), QStringLiteral("Matrices"), QStringLiteral("matrices"),
                     QStringLiteral("Show the selected layer's W, Q, L·R and what is left, cell by cell")})
    {}
    std::size_t bytes(const Picture& picture) const override
    {
        std::size_t sum = 0;
        for (const auto& part : static_cast<const LayerMatrices*>(picture.get())->parts)
            sum += part ? part->bytes() : 0;
        return sum;
    }
    std::size_t comparedBytes(const Picture& picture) const override
    {
        const auto* other = static_cast<const OtherMatrix*>(picture.get());
        return (other->values ? other->values->bytes() : 0)
               + (other->difference ? other->difference->bytes() : 0);
    }
    bool comparesPictures() const override { return true; }
    Picture compare(const ViewSides& sides, const Picture& first, const Picture& second,
                    Monitor& monitor) const override
    {
        OtherMatrix other;
        other.part = comparedPart(sides.second);
        const auto& a = static_cast<const LayerMatrices*>(first.get())->parts[other.part];
        other.values = static_cast<const LayerMatrices*>(second.get())->parts[other.part];
        monitor.throw_if_cancelled();
        if (a && other.values)
            other.difference = drawable(difference_of(*a, *other.values));
        return std::make_shared<const OtherMatrix>(std::move(other));
    }
    void drawOther(PlotView& plot, const QString& name, const Picture& picture) const override
    {
        static_cast<MatricesPlot&>(plot).setOther(std::static_pointer_cast<const OtherMatrix>(picture), name);
    }

protected:
    Result<LayerMatrices> read(const ViewRequest& request, Backend& backend, Monitor& monitor) const override
    {
        auto weight = request.side.weight(request.layer);
        if (!weight)
            return weight.error();
        monitor.throw_if_cancelled();
        const auto decomposition = request.side.decomposition(request.layer);
        if (!decomposition)
            return decomposition.error();
        auto parts = *decomposition
                         ? layer_parts(*weight, **decomposition, backend)
                         : Result<LayerParts>(planned_parts(std::move(*weight), request.grid, backend));
        if (!parts)
            return parts.error();
        LayerMatrices matrices;
        matrices.from_run = decomposition->has_value();
        Matrix* const all[] = {&parts->weight, &parts->quantized, &parts->low_rank, &parts->residual};
        for (std::size_t part = 0; part < LayerMatrices::k_parts; ++part) {
            if (request.second && part != comparedPart(request))
                continue;
            monitor.throw_if_cancelled();
            matrices.parts[part] = drawable(MagnitudePyramid(std::move(*all[part])));
        }
        return matrices;
    }
    void show(MatricesPlot& plot, const ViewRequest& request, const Shared& matrices) const override
    {
        plot.setMatrices(matrices, toQString(request.layer.name));
    }
};

} // namespace

const View& matricesView()
{
    static const MatricesView view;
    return view;
}

} // namespace rankscope
