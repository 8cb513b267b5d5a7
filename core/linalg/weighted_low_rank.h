// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

namespace rankscope {

/// L·R of rank r with L: m × r, R: r × n, on a backend (float32).
struct LowRankBuffers {
    Buffer left;
    Buffer right;
    double tail = 0.0; ///< value of the objective: the least one, Σ_{i>r} λ_i, unless the factors are rounded
    // By-products, where whoever made the factors has them: they save products with H later.
    Buffer weighted_right{};   ///< R·H; empty: not known
    double squared_norm = 0.0; ///< ‖L·R·H^½‖²; with weighted_right only
};

/// argmin over rank-r L·R of ‖(A − L·R)·H^½‖_F: L = the top r eigenvectors of A·H·Aᵀ, R = Lᵀ·A (methods-joint
/// §4.2, methods-learned §4.1). H may be singular; no inverse of it is taken. `hessian`: n × n float64
/// buffer, or empty for the identity (plain SVD). The Gram forms run in float64.
LowRankBuffers weighted_low_rank(const Buffer& a, const Buffer& hessian, Index rank, Backend& backend);

/// Squared singular values of A·H^½, falling, min(m, n) of them: tail sums give the least error at every rank
/// (§5.2).
VectorD weighted_spectrum(const Buffer& a, const Buffer& hessian, Backend& backend);

/// tr(E·H·Eᵀ) = Σ (E·H) ⊙ E in float64, without a root of H.
double weighted_squared_norm(const Buffer& e, const Buffer& hessian, Backend& backend);

/// H − H·Rᵀ·(R·H·Rᵀ)⁻¹·R·H, symmetric: the metric of what L cannot repair once it is refitted with R fixed
/// (methods-joint §4.3). Positive semidefinite, R·H⊥ = 0; damp it before factorizing. `hessian`: n × n
/// float64.
MatrixD downdated_hessian(const Buffer& hessian, const Buffer& right, Backend& backend);

/// Scales component i of L and R so that both have the same norm (best for stored factors); the product is
/// unchanged.
void balance(Matrix& left, Matrix& right);

} // namespace rankscope
