// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/compute/buffer.h"

#include <span>

namespace rankscope {

/// Inputs that share a point of the E8P lattice; a shorter last group is padded with zeros.
inline constexpr Index k_lattice_width = 8;
/// Codes of a group.
constexpr Index lattice_stages(int bits) { return bits == 4 ? 2 : 1; }

/// Block LDLQ to the E8P lattice (methods-joint §2.2), columns in the order of the sweep. Blocks are the
/// lattice's groups of inputs: at most eight columns, of which one block may have fewer.
struct LatticeSweep {
    const Buffer& feedback;            ///< U of H = U·D·Uᵀ: n × n, float32, block unit upper triangular
    std::span<const Index> starts;     ///< position of each block's first column, and n
    std::span<const MatrixD> diagonal; ///< D of each block
    int bits = 2;                      ///< 2 or 4
    float scale = 1.0F;                ///< > 0
};

/// A matrix on the lattice.
struct LatticeBuffers {
    Buffer values; ///< rows × cols, float32: scale · point
    Buffer codes; ///< rows × groups (two a group with 4 bits), float32 holding 0 … 65535, groups as in the
                  ///< values
    /// Of a sweep: tr((W − Q)·H·(W − Q)ᵀ) where it is measured by the way; negative: not known.
    double loss = -1.0;
};

/// What coordinate descent over groups goes by; columns in their own order.
struct LatticeDescent {
    const Buffer& hessian; ///< n × n, symmetric, float32 or float64
    int bits = 2;
    float scale = 1.0F;
    int passes = 1;
};

/// What a caller did wrong, for the operations of backends; null: nothing.
const char* broken_contract(const Buffer& w, const LatticeSweep& sweep);
const char* broken_contract(const Buffer& w, const LatticeBuffers& start, const LatticeDescent& descent);

} // namespace rankscope
