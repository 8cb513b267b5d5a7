// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/activation_quantization.h"
#include "core/tensor/matrix.h"

#include <cstdint>

namespace rankscope {

/// Second moments of one linear input, what activation-aware methods need. Raw (not centred), per token,
/// undamped. Those with a second input y of the same tokens, y = Q_a(x), are there when the calibration
/// collected them (LRC, methods-joint §6.1).
struct Moments {
    std::uint64_t tokens = 0;
    MatrixD hessian;  ///< in × in: H = Σ_xx = X·Xᵀ / tokens, symmetric
    VectorD mean_abs; ///< in: mean |x_j|
    VectorD max_abs;  ///< in: max |x_j|

    ActivationQuantization activations; ///< what made y; not active without one
    MatrixD sigma_xy;                   ///< in × in: X·Yᵀ / tokens, not symmetric; empty without y
    MatrixD sigma_yy;                   ///< in × in: Y·Yᵀ / tokens, symmetric; empty without y

    Index channels() const { return hessian.rows(); }
    bool empty() const { return hessian.size() == 0; }
    bool has_quantized_activations() const { return sigma_yy.size() > 0; }
};

} // namespace rankscope
