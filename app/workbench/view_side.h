// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/calibration_store.h"
#include "core/model/tensor_matching.h"
#include "core/run/run.h"

#include <QString>

#include <memory>
#include <optional>

namespace rankscope {

/// What a picture is made of: a checkpoint with what is known of it, or a run of it.
struct ViewSide {
    std::shared_ptr<const Model> model;
    std::shared_ptr<const CalibrationStore> calibration; ///< may be null
    std::shared_ptr<const Run> run;                      ///< may be null
    bool compressed = false; ///< its weights are Q + L·R of the run, which is then there
    QString name;            ///< of the file or run, for people
    QString path;            ///< of the same

    /// A layer's weight as this side has it. Reads the disk. Errors: as Model::weight, Run::decomposition.
    Result<Matrix> weight(const LinearLayer& layer) const;
    /// What the run made of a layer; none without a run, without that layer, and of a compressed side.
    Result<std::optional<Decomposition>> decomposition(const LinearLayer& layer) const;
    /// Of the layer's input; none without calibration.
    Result<std::optional<Moments>> moments(const LinearLayer& layer) const;
};

/// The side that a path names, a checkpoint or a run; moments of `first` hold for a run of the same
/// checkpoint. Reads the disk. Errors: as Model::open, Run::open.
Result<ViewSide> openOtherSide(const QString& path, const Model& first,
                               const std::shared_ptr<const CalibrationStore>& calibration);

/// What the open checkpoint is compared with.
struct Comparison {
    ViewSide other;
    TensorMatching matching; ///< from the open checkpoint to the other one
};

} // namespace rankscope
