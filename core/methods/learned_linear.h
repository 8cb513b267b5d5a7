// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/random.h"
#include "core/compute/backend.h"
#include "core/quantize/quantized_matrix.h"

#include <cstdint>
#include <vector>

namespace rankscope {

/// How the exponents of a learned rounding are made: LRQ's L₂·U₂ + r + c, or FlexRound's full S₂ + r.
enum class LearnedKind : std::uint8_t { Lrq, FlexRound };

/// What is trained: log-domain parameters, all zero at the start but U₂ (methods-learned §1.1, §2).
struct LearnedParameters {
    Buffer shift;   ///< δ = log s₁ − log s₀: out × groups
    Buffer rows;    ///< r: out × 1
    Buffer columns; ///< c: 1 × in; LRQ only
    Buffer left;    ///< L₂: out × rank; LRQ only
    Buffer right;   ///< U₂: rank × in; LRQ only
    Buffer full;    ///< S₂: out × in; FlexRound only
};

/// LRQ's rank where none is given (methods-learned §1.3): 1024, 2048 where both sides have 8192, but at most
/// a quarter of the smaller side, so that it stays low on small layers; at least 1.
Index default_learned_rank(Index out, Index in);

/// A weight on a grid whose roundings are learned by gradient descent. With the parameters of the start it is
/// nearest rounding. Precision of `weight`; one thread at a time.
class LearnedLinear {
public:
    /// Parameters as published; `fitted` is the weight's grid, `random` gives U₂.
    LearnedLinear(Buffer weight, GridBuffers fitted, LearnedKind kind, Index rank, const RandomStream& random,
                  Backend& backend);
    LearnedLinear(Buffer weight, GridBuffers fitted, LearnedKind kind, LearnedParameters start,
                  Backend& backend);

    /// Ŵ with the present parameters; valid until the next call.
    const Buffer& forward(Backend& backend);
    /// Takes ∂loss/∂Ŵ of the last forward pass to the parameters.
    void backward(const Buffer& dvalues, Backend& backend);
    /// Moves all parameters by the last gradients.
    void step(const AdamStep& by, Backend& backend);

    LearnedParameters snapshot(Backend& backend) const; ///< copies
    /// Copies these in; `forget` also clears Adam's moments.
    void restore(const LearnedParameters& parameters, bool forget, Backend& backend);
    const LearnedParameters& gradients() const { return gradients_; }
    const LearnedParameters& parameters() const { return parameters_; }

    /// Codes and scales s₁ of the present parameters, on the host.
    QuantizedMatrix quantized(Backend& backend);
    const Buffer& weight() const { return weight_; }
    Index trained_numbers() const;

private:
    LearnedGrid grid() const;
    void clear_moments(Backend& backend);

    Buffer weight_;
    GridBuffers fitted_;
    LearnedKind kind_;
    LearnedParameters parameters_, gradients_, first_, second_;
    LearnedRounding rounding_;
    Buffer exponent_;
};

/// Bytes that training a linear of this shape takes beside its float32 weight.
std::uint64_t learned_linear_bytes(LearnedKind kind, Index out, Index in, Index rank, Index groups);

} // namespace rankscope
