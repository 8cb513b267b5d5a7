// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/model/architecture.h"
#include "core/tensor/matrix.h"

#include <cstdint>

namespace rankscope {

/// QuaRot's rotation of a whole model (arXiv 2404.00456; methods-joint §3.3): the residual stream h becomes
/// h·R1 with R1 = diag(signs)·T_dᵀ, norm gains are folded into what reads it, and activations without
/// outliers reach every linear. In real numbers the model computes the same. Matrices are turned in float64.
class ModelRotation {
public:
    explicit ModelRotation(VectorD signs); ///< −1 or 1, one for each channel of the residual stream
    /// Signs that follow from the seed.
    static ModelRotation random(Index hidden, std::uint64_t seed);

    const VectorD& signs() const { return signs_; }
    MatrixD residual(MatrixD rows) const; ///< rows·R1; R1 itself of the identity
    /// W·diag(gain)·R1 of a linear that reads the normed residual stream; an empty gain is 1.
    MatrixD reader(MatrixD weight, const VectorD& gain) const;
    /// R1ᵀ·W of a linear that adds to the residual stream.
    MatrixD writer(const MatrixD& weight) const;

private:
    VectorD signs_;
};

// Inside attention and the MLP -------------------------------------------------------------------------

/// T over each head's `head_dim` rows, from `first_row` to the end: of the values' projection (or its bias as
/// a column).
MatrixD with_rotated_heads(MatrixD rows, Index first_row, Index head_dim);
/// W·(T_heads ⊗ T_head_dim)ᵀ: what reads attention's result, of values rotated by head, after head_mix.
MatrixD with_rotated_attention(const MatrixD& weight, Index heads);
/// W·T_nᵀ: what reads an input that is rotated as a whole.
MatrixD with_rotated_input(MatrixD weight);
/// T_heads ⊗ I: attention's result a (tokens × heads · head_dim) becomes a·(T_heads ⊗ I)ᵀ as it is computed.
MatrixD head_mix(Index heads, Index head_dim);

/// Why a model of this family cannot be rotated, or success. Errors: BadInput.
Status check_rotatable(const Architecture& architecture, const ModelConfig& config);

} // namespace rankscope
