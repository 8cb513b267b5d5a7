// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/plots/matrices_plot.h"
#include "app/workbench/text.h"
#include "app/workbench/views/registry.h"
#include "core/plan/layer_parts.h"

namespace rankscope {

namespace {

class MatricesView final : public TypedView<MatricesPlot, LayerMatrices> {
public:
    MatricesView()
        : TypedView({QStringLiteral("matrices"), QStringLiteral("Matrices"), QStringLiteral("matrices"),
                     QStringLiteral("Show the selected layer's W, Q, L·R and what is left, cell by cell")})
    {}

protected:
    Result<LayerMatrices> read(const ViewRequest& request, Backend& backend, Monitor& monitor) const override
    {
        const auto weight = request.side.weight(request.layer);
        if (!weight)
            return weight.error();
        monitor.throw_if_cancelled();
        const auto decomposition = request.side.decomposition(request.layer);
        if (!decomposition)
            return decomposition.error();
        auto parts = *decomposition ? layer_parts(*weight, **decomposition, backend)
                                    : Result<LayerParts>(planned_parts(*weight, request.grid, backend));
        if (!parts)
            return parts.error();
        LayerMatrices matrices;
        matrices.from_run = decomposition->has_value();
        for (const auto& [part, target] :
             {std::pair(&parts->weight, &matrices.weight), std::pair(&parts->quantized, &matrices.quantized),
              std::pair(&parts->low_rank, &matrices.low_rank),
              std::pair(&parts->residual, &matrices.residual)}) {
            monitor.throw_if_cancelled();
            *target = std::make_shared<const MagnitudePyramid>(std::move(*part));
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
