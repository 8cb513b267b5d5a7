// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/plan/layer_plan.h"

#include <QString>
#include <QVector>

namespace rankscope {

/// A whole plan by name. Parameters that a method does not have are ignored, ranks are cut to what the
/// smallest side of a layer allows.
struct PlanPreset {
    QString id;    ///< "odlri-2"
    QString title; ///< "ODLRI 2-bit, group 64, rank 8"
    std::string method;
    std::map<std::string, ParameterValue, std::less<>> parameters;
};

/// Those whose method is registered, in the order shown.
QVector<PlanPreset> planPresets();
/// What is prefilled for a newly opened checkpoint.
QString defaultPresetId(const Model& model);

/// The preset on every linear of the model. Errors: Usage.
Result<Plan> presetPlan(const PlanPreset& preset, const Model& model);

/// One row changed in one cell, `name` being "include", "locked", "method" or a parameter's name. A new
/// method keeps the parameters that both have. Errors: Usage, with the reason (rank beyond the matrix,
/// unknown parameter …).
Result<LayerPlan> changedRow(const LayerPlan& row, const LinearLayer& layer, std::string_view name,
                             const ParameterValue& value);

/// The value of a row's parameter, or nothing when its method has no such parameter.
std::optional<std::int64_t> rowInteger(const LayerPlan& row, std::string_view name);
/// The uniform grid that a row's method rounds to; what the method leaves open is the type's default.
UniformGrid rowGrid(const LayerPlan& row);

} // namespace rankscope
