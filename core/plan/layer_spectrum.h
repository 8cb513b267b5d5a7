// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/moments.h"
#include "core/compute/backend.h"
#include "core/compute/uniform_grid.h"

#include <optional>

namespace rankscope {

/// Singular values for the Spectrum view and the error curve of a layer: one quantisation and one
/// decomposition give the error at every rank (methods-learned §5.2). Values are falling; min(out, in) of
/// each.
struct LayerSpectrum {
    VectorD weight;             ///< σ(W)
    VectorD weighted;           ///< σ(W·H^½); empty without moments
    VectorD residual;           ///< σ(W − Q)
    VectorD weighted_residual;  ///< σ((W − Q)·H^½); empty without moments
    double weight_norm = 0.0;   ///< ‖W‖_F
    double weighted_norm = 0.0; ///< ‖W·H^½‖_F

    /// Predicted relative (activation) error of Q + L·R at rank r: sqrt(Σ_{i>r} σ²(residual)) / norm;
    /// weighted when moments were given. 0 ≤ r ≤ size.
    double predicted_error(Index rank) const;
    /// Σ_{i>r} σ² / Σ σ² of the given values.
    static double tail_share(const VectorD& values, Index rank);
    /// Smallest rank whose kept energy reaches `share`.
    static Index rank_for_energy(const VectorD& values, double share);
};

/// Q is nearest rounding to `grid`. Exact decompositions in float64; cancellable between them.
LayerSpectrum layer_spectrum(const Matrix& weight, const Moments* moments, const UniformGrid& grid,
                             Backend& backend, Monitor& monitor);

/// What the shape of a spectrum says in a few figures (methods-learned §6.2). All zero for a zero matrix.
struct SpectrumSummary {
    double stable_rank = 0.0;    ///< ‖A‖²_F / σ₁²
    double effective_rank = 0.0; ///< exp(−Σ p·ln p), p = σ/Σσ
    double participation = 0.0;  ///< (Σσ²)² / Σσ⁴
    Index rank_90 = 0;           ///< least rank that keeps 90 % of the energy
    Index rank_99 = 0;
};
SpectrumSummary summarize_spectrum(const VectorD& values);
/// max|a|·√(rows·cols) / ‖A‖_F: 1 when all entries are alike, large with outlier entries.
double incoherence(const Eigen::Ref<const MatrixD>& a);

/// Per-channel figures of the Channels view, from weight and moments alone.
struct ChannelProfile {
    VectorD weight_max_abs; ///< per input column of W
    VectorD weight_rms;
    VectorD hessian_diagonal; ///< empty without moments
    VectorD activation_max_abs;
    VectorD
        weighted_energy; ///< H_jj·‖W_:j‖²: what the column carries of ‖W·diag(H)^½‖²; ‖W_:j‖² without moments
};
ChannelProfile channel_profile(const Matrix& weight, const Moments* moments);

} // namespace rankscope
