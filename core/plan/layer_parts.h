// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"
#include "core/methods/method.h"
#include "core/quantize/value_histogram.h"

#include <optional>
#include <string>
#include <vector>

namespace rankscope {

/// A weight and what it was taken apart into, all out × in and in the weight's own basis. Empty: there is no
/// such part.
struct LayerParts {
    Matrix weight;
    Matrix quantized; ///< Q
    Matrix low_rank;  ///< L·R
    Matrix residual;  ///< W − Q − L·R
};

/// The parts that a method left. Errors: BadInput when the shapes differ.
Result<LayerParts> layer_parts(const Matrix& weight, const Decomposition& decomposition, Backend& backend);
/// Before there is a run: Q is nearest rounding to `grid`.
LayerParts planned_parts(Matrix weight, const ScalarGrid& grid, Backend& backend);

/// Values for the Histogram view: the weight, what of it a method hands to the grid, and the grid.
struct LayerHistogram {
    enum class Series : std::uint8_t {
        Weight,
        Rotated,   ///< the weight in the basis that Q is stored in, or would be
        Remainder, ///< what Q rounds: that less L·R
    };
    struct Values {
        Series series = Series::Weight;
        ValueHistogram histogram;
    };
    std::vector<Values> values; ///< over the same bins
    GridFit fit;                ///< of the last series
    bool from_run = false;      ///< the grid is a finished layer's, else that of nearest rounding
    bool lattice = false;       ///< E8P: no scalar levels
    Index rows = 0;
    Index groups = 0; ///< a row
    Index group_width = 0;
};

struct LayerHistogramOptions {
    GroupChoice choice;
    ValueUnit unit = ValueUnit::Plain;
    int bins = 0; ///< 0: as many as so many values make sense of (Rice's rule, 16 … 512)
    /// Without a decomposition: also the weight turned by random Hadamard matrices, and the grid of that.
    bool rotated = false;
    std::string name; ///< of the layer: keys the signs
};

/// `decomposition` may be null: then the grid is that of nearest rounding to `grid`. Errors: BadInput when
/// the shapes differ; Usage when there is no such row or group.
Result<LayerHistogram> layer_histogram(const Matrix& weight, const Decomposition* decomposition,
                                       const ScalarGrid& grid, const LayerHistogramOptions& options,
                                       Backend& backend, Monitor& monitor);

} // namespace rankscope
