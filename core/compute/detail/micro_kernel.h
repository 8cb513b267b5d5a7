// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <cstdint>
#include <span>

namespace rankscope::detail {

constexpr Index k_panel_cols = 48; ///< columns of a panel of a right factor
constexpr Index k_tile_rows = 8;   ///< rows that a kernel computes at most
constexpr Index k_vector_cols = 16;

/// Two neighboring bfloat16 numbers, the first in the low half. A product of two pairs is the sum of both
/// products.
enum class BfloatPair : std::uint32_t {};

/// One tile of a product: c = alpha · Σ_k a(r, k) · b(k, j) + beta · c for k < steps. a(r, k) stands at
/// a[r · a_row + k · a_step], b(k, j) at b[k · b_step + j]. beta = 0 does not read c.
template <class Term, class Sum = Term>
struct ProductTile {
    const Term* a = nullptr;
    Index a_row = 0;
    Index a_step = 0;
    const Term* b = nullptr;
    Index b_step = 0;
    Index steps = 0;
    Sum* c = nullptr;
    Index c_row = 0;
    Index rows = 0; ///< 1 to k_tile_rows
    Index cols = 0; ///< a multiple of k_vector_cols up to k_panel_cols
    Sum alpha = 1;
    Sum beta = 0;
};

using FloatTile = ProductTile<float>;
using DoubleTile = ProductTile<double>;
using BfloatTile = ProductTile<BfloatPair, float>;

/// The inner loops of all dense products of one instruction set. Each element of c is one sum in the order of
/// k.
struct MicroKernels {
    const char* name;
    void (*floats)(const FloatTile&);
    void (*doubles)(const DoubleTile&);
    void (*bfloats)(const BfloatTile&); ///< null where the CPU has no such instruction
};

/// Those that this CPU can run, the best one first; the last is portable.
std::span<const MicroKernels* const> micro_kernels();
/// The best of this CPU.
inline const MicroKernels& micro_kernel() { return *micro_kernels().front(); }

} // namespace rankscope::detail
