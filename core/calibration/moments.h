// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <cstdint>

namespace rankscope {

/// Second moments of one linear input, what activation-aware methods need. Raw (not centred), per token.
struct Moments {
    std::uint64_t tokens = 0;
    MatrixD hessian;  ///< in × in: H = X·Xᵀ / tokens, symmetric
    VectorD mean_abs; ///< in: mean |x_j|
    VectorD max_abs;  ///< in: max |x_j|

    Index channels() const { return hessian.rows(); }
    bool empty() const { return hessian.size() == 0; }
};

} // namespace rankscope
