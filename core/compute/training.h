// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/buffer.h"
#include "core/compute/uniform_grid.h"

namespace rankscope {

// What the backward passes of Backend hand back, and what learned rounding works on. A name that starts with
// d is the gradient of one scalar loss with respect to what follows; its shape is that of the thing itself.

struct NormGradient {
    Buffer dx;
    Buffer dgain; ///< 1 × width of the gain
    Buffer dbias; ///< LayerNorm only: 1 × features
};

struct AttentionGradient {
    Buffer dq;
    Buffer dk; ///< summed over the query heads that share a kv head
    Buffer dv;
};

struct GateGradient {
    Buffer dgate; ///< before the activation
    Buffer dup;
};

/// A weight whose rounding is learned (LRQ arXiv 2407.11534, FlexRound 2306.00317; methods-learned §1.1):
/// each weight is divided by S = s₁ ⊙ exp(E + r + c) before it is rounded and multiplied by s₁ = s₀ ⊙ exp(δ)
/// afterwards. With E, δ, r and c zero this is nearest rounding with the scales s₀, to the last bit.
struct LearnedGrid {
    UniformGrid grid;
    Buffer scales;   ///< s₀: rows × groups, > 0, fixed
    Buffer zeros;    ///< z: rows × groups, integers, fixed
    Buffer shift;    ///< δ: rows × groups
    Buffer exponent; ///< E: rows × cols (L₂·U₂, or FlexRound's S₂)
    Buffer rows;     ///< r: rows × 1
    Buffer columns;  ///< c: 1 × cols, or empty
};

/// Ŵ = s₁ ⊙ clamp(⌊v⌉) with v = W / S, which the backward pass needs again.
struct LearnedRounding {
    Buffer values;
    Buffer ratio; ///< v
};

/// Straight through the rounding; the clamp stops the gradient of what it cuts off (methods-learned §1.2).
struct LearnedGradient {
    Buffer dexponent; ///< D = −G ⊙ s₁ ⊙ [inside] ⊙ v, of E
    Buffer dshift;    ///< Σ over each group of G ⊙ s₁ ⊙ code + D
    Buffer drows;     ///< row sums of D
    Buffer dcolumns;  ///< column sums of D; empty without c
};

/// One step of Adam (Kingma and Ba 2014) without weight decay; `step` counts from 1.
struct AdamStep {
    double learning_rate = 1e-3;
    std::int64_t step = 1;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
};

} // namespace rankscope
