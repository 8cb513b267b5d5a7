// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/backend.h"

namespace rankscope {

inline constexpr int k_unquantized_bits = 16;

/// How the input of a linear layer is rounded before it meets Ŵ (methods-joint §1.5): token by token, with
/// the step clip · max|x| / (2^(bits−1) − 1) and whole steps from −2^(bits−1) to 2^(bits−1) − 1.
struct ActivationQuantization {
    int bits = k_unquantized_bits; ///< 2…8; 16: not at all
    double clip = 0.9;             ///< share of a token's largest value at which the range ends, in (0, 1]

    bool active() const { return bits < k_unquantized_bits; }
    bool operator==(const ActivationQuantization& other) const
    {
        return bits == other.bits && (!active() || clip == other.clip);
    }
};

/// Q_a(x) of x: tokens × features, in a new buffer; x itself when nothing is quantized. Rounds half to even.
/// A token without any value stays 0.
Buffer quantized_activations(const Buffer& x, const ActivationQuantization& options, Backend& backend);

} // namespace rankscope
