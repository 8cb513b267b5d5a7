// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/tensor/matrix.h"

#include <cstdint>

namespace rankscope {

/// Symmetric scale rules; both exist in the sources and differ most at few bits (methods-joint §1.1).
enum class SymmetricRule : std::uint8_t {
    Full,       ///< s = 2·max|w| / (2^b − 1): GPTQ; default for weights
    Restricted, ///< s = max|w| / (2^(b−1) − 1): QuaRot, LRC, activations
};

/// How the range of a group is narrowed before its scale is taken.
enum class ClipSearch : std::uint8_t {
    None,
    Shrink,   ///< GPTQ/QuaRot: for i = 0…79 the range × (1 − i/100), least Σ|q(w) − w|^2.4, first best wins
    Grid,     ///< LRQ: 100 widths × 2^b zero points (asymmetric) or 100 thresholds (symmetric), per-row least mean
};

/// A uniform integer grid: value = scale · code, the zero point already subtracted from the code.
/// Asymmetric codes lie in [−z, 2^b − 1 − z], symmetric ones in [−2^(b−1), 2^(b−1) − 1] (methods-joint §1.1).
struct UniformGrid {
    int bits = 4;              ///< 2…8
    Index group = 128;         ///< −1: one scale per matrix; 0: per row (output channel); g > 0: per g consecutive inputs
    bool symmetric = false;
    SymmetricRule rule = SymmetricRule::Full;
    ClipSearch clip = ClipSearch::None;
    double clip_norm = 2.4;    ///< exponent of the search's error
    int clip_steps = 100;
    double clip_shrink = 0.8;  ///< Shrink stops at the range × (1 − clip_shrink)

    /// Width of a group for rows of `cols` inputs; the last group may be shorter.
    Index group_width(Index cols) const { return group <= 0 || group > cols ? cols : group; }
    Index groups(Index cols) const
    {
        const Index width = group_width(cols);
        return width == 0 ? 0 : (cols + width - 1) / width;
    }
    bool operator==(const UniformGrid&) const = default;
};

} // namespace rankscope
