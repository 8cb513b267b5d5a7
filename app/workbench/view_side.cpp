// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/view_side.h"

#include "app/workbench/text.h"

#include <algorithm>

namespace rankscope {

namespace {

/// Whether the run finished this layer.
bool holds(const Run& run, const LinearLayer& layer)
{
    const auto results = run.results();
    return std::any_of(results.begin(), results.end(),
                       [&layer](const LayerResult& result) { return result.layer == layer.name; });
}

} // namespace

Result<Matrix> ViewSide::weight(const LinearLayer& layer) const
{
    if (!compressed || !run || !holds(*run, layer))
        return model->weight(layer);
    const auto decomposition = run->decomposition(layer.name);
    if (!decomposition)
        return decomposition.error();
    return decomposition->reconstruct();
}

Result<std::optional<Decomposition>> ViewSide::decomposition(const LinearLayer& layer) const
{
    if (compressed || !run || !holds(*run, layer))
        return std::optional<Decomposition>();
    auto decomposition = run->decomposition(layer.name);
    if (!decomposition)
        return decomposition.error();
    return std::optional<Decomposition>(std::move(*decomposition));
}

Result<std::optional<Moments>> ViewSide::moments(const LinearLayer& layer) const
{
    if (!calibration)
        return std::optional<Moments>();
    auto moments = layer_moments(*calibration, *model, layer);
    if (!moments)
        return moments.error().in(layer.name);
    return std::optional<Moments>(std::move(*moments));
}

Result<ViewSide> openOtherSide(const QString& path, const Model& first,
                               const std::shared_ptr<const CalibrationStore>& calibration)
{
    ViewSide side;
    side.path = path;
    side.name = path.section(QLatin1Char('/'), -1, -1, QString::SectionSkipEmpty);
    if (Run::is_run(toPath(path))) {
        const auto run = Run::open(toPath(path));
        if (!run)
            return run.error();
        side.run = *run;
        side.compressed = true;
    }
    const auto model = side.run ? side.run->model() : Model::open(toPath(path));
    if (!model)
        return model.error();
    side.model = *model;
    // A run weights what the same inputs meet; of another file nothing is known.
    if (side.compressed && side.model->checkpoint().header_hash() == first.checkpoint().header_hash())
        side.calibration = calibration;
    return side;
}

} // namespace rankscope
