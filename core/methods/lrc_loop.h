// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"

namespace rankscope {

/// What the alternation of LRC (methods-joint §6.2) is told beside its problem.
struct LrcOptions {
    UniformGrid grid;
    ActivationQuantization activations; ///< not active: Y = X
    bool feedback = true;               ///< Ŵ by GPTQ; else to the nearest step
    bool act_order = false;
    bool relaxed_start = true; ///< else U = V = 0
    bool exact = false;        ///< eigenvectors of the whole Gram matrix at every size
    double damp = 0.01;
    Index rank = 0;
    int iterations = 1;
    int tune_passes = 0; ///< coordinate descent on the best Ŵ, and one more U, V
};

/// Second moments per token of one layer's input x and of y = Q_a(x), undamped.
struct LrcMoments {
    const MatrixD& xx; ///< in × in, symmetric
    const MatrixD& xy; ///< in × in: X·Yᵀ / tokens
    const MatrixD& yy; ///< in × in, symmetric
};

/// min over Ŵ on the grid, U and V of ‖W·X − Ŵ·Y − U·Vᵀ·X‖: from the start, `iterations` times Ŵ and then
/// U, V; the best pair of all iterations. Q is Ŵ, L is U and R is Vᵀ. The trace holds the start's error with
/// a Ŵ that need not lie on the grid ("start"), and every half-step's. Errors: BadInput. Throws Cancelled,
/// BackendFailure.
Result<Decomposition> correct_activations(const LayerProblem& problem, const LrcMoments& moments,
                                          const LrcOptions& options, Backend& backend, Monitor& monitor);

} // namespace rankscope
