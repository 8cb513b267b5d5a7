// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

#include <cstdint>
#include <string_view>

namespace rankscope {

/// The randomised Hadamard transform of one layer (methods-joint §3.1), from random signs on both sides:
/// W̃ = T_m·diag(s_l)·W·diag(s_r)·T_nᵀ and H̃ = T_n·diag(s_r)·H·diag(s_r)·T_nᵀ. The objective tr(E·H·Eᵀ) keeps
/// its value; outliers of W and H are spread over all channels. Without signs it is the identity.
class Incoherence {
public:
    Incoherence() = default;
    Incoherence(VectorD left_signs, VectorD right_signs); ///< entries −1 or 1, m and n of them
    /// Signs that follow from the seed and the layer's name alone.
    static Incoherence random(Index rows, Index cols, std::uint64_t seed, std::string_view layer);

    bool empty() const { return left_.size() == 0 && right_.size() == 0; }
    const VectorD& left_signs() const { return left_; }
    const VectorD& right_signs() const { return right_; }

    Buffer weight(const Buffer& w, Backend& backend) const;
    MatrixD hessian(const MatrixD& h, Backend& backend) const;
    Buffer left_factor(const Buffer& left, Backend& backend) const;   ///< L̃ = T_m·diag(s_l)·L
    Buffer right_factor(const Buffer& right, Backend& backend) const; ///< R̃ = R·diag(s_r)·T_nᵀ

    // Back to the layer's own basis.
    Matrix restored_weight(const Matrix& w, Backend& backend) const;
    Matrix restored_left(const Matrix& left, Backend& backend) const;
    Matrix restored_right(const Matrix& right, Backend& backend) const;

private:
    VectorD left_, right_;
};

} // namespace rankscope
