// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/linalg/weighted_low_rank.h"

namespace rankscope {

/// How L and R are stored.
struct FactorOptions {
    int bits = 16; ///< 16: as they are; 8: integers, restricted symmetric scale; 4: E8P in two stages
    bool per_component = true; ///< a scale for each column of L and row of R, else one for each factor
    int iterations = 10;       ///< of the alternation that fits quantized factors
};

/// L·R of rank r near A in the metric of H with quantized factors (LPLR, methods-joint §4.4): from the exact
/// minimizer, L ← A·H·Rᵀ·(R·H·Rᵀ)⁻¹ and R ← (LᵀL)⁻¹·Lᵀ·A in turn, each rounded at once; the best pair wins.
/// With 16 bits the exact minimizer itself. `hessian`: n × n float64. The factors hold rounded values and
/// must not be rescaled.
LowRankBuffers quantized_low_rank(const Buffer& a, const Buffer& hessian, Index rank,
                                  const FactorOptions& options, Backend& backend, Monitor& monitor);

/// Bits that both factors take, with their scales of 16 bits and what fills up the last group of eight (4
/// bits).
double factor_storage_bits(Index rows, Index cols, Index rank, const FactorOptions& options);

} // namespace rankscope
