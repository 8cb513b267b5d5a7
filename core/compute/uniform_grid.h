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

/// What the codes of a grid stand for.
enum class GridLevels : std::uint8_t {
    Integers,    ///< the code itself
    NormalFloat, ///< 2^b quantiles of the normal distribution in [−1, 1] (normal_float.h)
    MxInt,       ///< the code itself; a sign and b − 1 bits, the scale a power of two (mx_int.h)
    Kquant,      ///< the code itself; a GGUF K type, whose scales and minima share steps (kquant.h)
};

/// A scalar grid: value = scale · level(code), the zero point already subtracted from the code.
/// Integers: asymmetric codes lie in [−z, 2^b − 1 − z], symmetric ones in [−2^(b−1), 2^(b−1) − 1] (methods-joint
/// §1.1). The other levels are symmetric by themselves: `symmetric` is set, `rule` and the search mean nothing.
/// Exception: Kquant of 2, 4 and 5 bits has unsigned codes and value = scale · code − zero, `symmetric` is not set.
struct ScalarGrid {
    int bits = 4;              ///< 2…8
    Index group = 128;         ///< −1: one scale per matrix; 0: per row (output channel); g > 0: per g consecutive inputs
    bool symmetric = false;
    GridLevels levels = GridLevels::Integers;
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
    bool operator==(const ScalarGrid&) const = default;
};
/// Its name where whole-number steps are meant, which is nearly everywhere.
using UniformGrid = ScalarGrid;

} // namespace rankscope
