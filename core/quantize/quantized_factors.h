// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/linalg/weighted_low_rank.h"

namespace rankscope {

/// How L and R are stored.
struct FactorOptions {
    int bits = 16; ///< 16: as they are; 8: integers, restricted symmetric scale; 4: E8P in two stages
    bool per_component = true; ///< a scale for each column of L and row of R, else one for each factor
    int iterations = 10;       ///< of the alternation that fits quantized factors, at most
    bool early_stop = false;   ///< end it when four rounds did not lower the objective by 0.1 %
};

/// L·R near A in the metric of H with quantized factors (LPLR, methods-joint §4.4), from the exact minimizer
/// `start`: L ← A·H·Rᵀ·(R·H·Rᵀ)⁻¹ and R ← (LᵀL)⁻¹·Lᵀ·A in turn, each rounded at once; the best pair wins,
/// with its products. Least squares by an r × r Cholesky factor. `a` and `hessian` in one precision; `whole`
/// = tr(A·H·Aᵀ). With 16 bits the start itself. The factors hold rounded values and must not be rescaled.
LowRankBuffers quantize_factors(const Buffer& a, double whole, const Buffer& hessian,
                                const LowRankBuffers& start, const FactorOptions& options, Backend& backend,
                                Monitor& monitor);

/// The same from A itself, in float64: exact minimizer, then quantize_factors. `hessian`: n × n float64.
LowRankBuffers quantized_low_rank(const Buffer& a, const Buffer& hessian, Index rank,
                                  const FactorOptions& options, Backend& backend, Monitor& monitor);

/// Bits that both factors take, with their scales of 16 bits and what fills up the last group of eight (4
/// bits).
double factor_storage_bits(Index rows, Index cols, Index rank, const FactorOptions& options);

} // namespace rankscope
