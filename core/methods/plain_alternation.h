// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

/// Q by nearest rounding of what L·R leaves and L·R as the best of rank r for what Q leaves, in turn, both in
/// the plain norm (LoftQ, SVDQuant).
struct AlternationOptions {
    UniformGrid grid;
    Index rank = 0;
    int iterations = 5; ///< at most
    bool keep_best = true;
    bool low_rank_first = false;      ///< L·R starts, with Q = 0
    bool stop_when_rising = false;    ///< ends when an iteration is worse than the one before
    const MatrixD* hessian = nullptr; ///< errors are measured in it; null: in the plain norm
};
/// The best iterate, or the last one. Throws Cancelled.
Result<Decomposition> alternate(const LayerProblem& problem, const AlternationOptions& options,
                                Backend& backend, Monitor& monitor);

} // namespace rankscope
