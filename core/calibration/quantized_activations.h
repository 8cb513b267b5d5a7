// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/calibration/moments.h"
#include "core/compute/backend.h"

namespace rankscope {

/// What is wrong with a rounding that is to be calibrated for: bits outside 2…8, clip not in (0, 1]. Errors:
/// Usage.
Status check(const ActivationQuantization& options);

/// quantized_activations of x in float64, on the host: tokens × in, finite.
MatrixD quantize_tokens(const Eigen::Ref<const MatrixD>& x, const ActivationQuantization& options);

/// Second moments of x (tokens × in, at least one token, finite) and of y = Q_a(x), all in float64: what a
/// matrix with given activations needs. Not active: without y.
Moments moments_of(const Eigen::Ref<const MatrixD>& x, const ActivationQuantization& options);

/// Σ x·xᵀ, and with a second input y of the same tokens Σ x·yᵀ and Σ y·yᵀ, where the backend computes:
/// products in float32 per 256 tokens, sums across them in float64.
class CovarianceSums {
public:
    CovarianceSums() = default;
    CovarianceSums(Index channels, bool with_second, Backend& backend);

    /// x and y: tokens × channels, float32. y empty: none.
    void add(const Buffer& x, const Buffer& y, Backend& backend);

    bool has_second() const { return !yy_.empty(); }
    const Buffer& xx() const { return xx_; }
    const Buffer& xy() const { return xy_; }
    const Buffer& yy() const { return yy_; }

private:
    Buffer xx_, xy_, yy_; // channels × channels, float64
};

} // namespace rankscope
