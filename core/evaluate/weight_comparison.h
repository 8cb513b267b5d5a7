// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/model/model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace rankscope {

/// How far a layer's weight in one checkpoint is from the same layer's in another, the original.
struct LayerDifference {
    std::string layer;
    std::string type; ///< how the other checkpoint stores it: "F16", "gptq int4 g64"
    double bits_per_weight = 0.0;
    double relative_error =
        0.0; ///< ‖W − Ŵ‖_F / ‖W‖_F, W the original; 0 where both are zero, 1 where only W is
    double max_difference = 0.0; ///< largest |w − ŵ|
};

struct WeightComparison {
    std::vector<LayerDifference> layers; ///< in the original's order
    std::uint64_t bytes = 0;             ///< of these layers, as the other checkpoint stores them
    double bits_per_weight = 0.0;        ///< over all of them
    double relative_error = 0.0;         ///< of all of them as one vector
};

/// ‖A − B‖_F / ‖A‖_F of two matrices of one shape, in float64; 0 where both are zero, 1 where only A is.
double relative_difference(const Matrix& original, const Matrix& other);

/// Compares every linear of `original` with the layer of that name in `other`; one layer of each is in memory
/// at a time. Errors: BadInput (a layer is missing in `other` or has another shape), Cancelled, NoSpace.
Result<WeightComparison> compare_weights(const Model& original, const Model& other, Monitor& monitor);

} // namespace rankscope
