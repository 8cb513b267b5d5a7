// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <memory>

namespace rankscope {

/// The left factor B_p of T_n = B_p ⊗ S_{n/p} (methods-joint §3.2), S the orthonormal Sylvester matrix in
/// natural order: p = 1 for powers of two; else the smallest odd part · 2^i (i ≥ 2, p divides n, p ≤ 1024)
/// that has a Paley matrix; else the Hartley matrix of the odd part. Not symmetric in general.
struct HadamardFactor {
    Index order = 1; ///< p
    MatrixD matrix;  ///< p × p, orthonormal
    Matrix single;   ///< the same in float32
};

/// The factor for dimension n ≥ 1. Made once per order and kept; thread-safe.
std::shared_ptr<const HadamardFactor> hadamard_factor(Index n);

} // namespace rankscope
