// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/methods/method.h"
#include "core/quantize/lattice_rounding.h"
#include "core/quantize/rounding.h"

#include <optional>

namespace rankscope {

// What methods that round against input moments do alike: the damped problem, one rounding, and handing it
// over.

/// The problem as an optimiser sees it (methods-joint §2.1): H symmetric and damped, columns of dead channels
/// zero.
struct DampedLayer {
    Buffer weight;
    MatrixD hessian;
    Incoherence transform; ///< by which weight and H are rotated already; empty: not at all
};
DampedLayer damped_layer(const LayerProblem& problem, double damp, Backend& backend, Monitor& monitor);

/// The same layer in the rotated basis: with the problem's signs, or those that follow from its seed.
DampedLayer rotated_layer(const LayerProblem& problem, DampedLayer layer, Backend& backend);

/// What Q is made of, and in which order columns are rounded.
struct QuantizerOptions {
    Codebook codebook = Codebook::Uniform;
    UniformGrid grid; ///< E8P: of it only the bits
    bool act_order = true;
};

/// A weight on its grid or lattice.
struct RoundedLayer {
    GridBuffers grid;       ///< uniform grids only
    RoundedBuffers rounded; ///< E8P: without codes
    int bits = 0;
    std::optional<LatticeLayer> lattice; ///< E8P only
    Incoherence transform;               ///< of the basis that it lives in
    /// tr(E·H·Eᵀ) of E = target − values in the H it was rounded against, as the sweep measured it by the
    /// way; negative: not known.
    double loss = -1.0;
};

/// Rounds one layer again and again with feedback against one H.
class LayerQuantizer {
public:
    /// `hessian` damped already. Errors: BadInput.
    static Result<LayerQuantizer> make(const MatrixD& hessian, const QuantizerOptions& options,
                                       Backend& backend, Monitor& monitor);
    /// On a grid or scale fitted to the target.
    RoundedLayer round(const Buffer& target, Backend& backend, Monitor& monitor) const;

private:
    LayerQuantizer() = default;
    QuantizerOptions options_;
    std::optional<FeedbackFactor> scalar_;
    std::optional<LatticeFeedback> lattice_;
};

/// Coordinate descent on a rounded layer; the error against `hessian` (float32 or float64) never rises.
RoundedLayer tuned(const Buffer& target, const RoundedLayer& layer, const Buffer& hessian, int passes,
                   Backend& backend, Monitor& monitor);

/// Nearest rounding; needs no moments.
RoundedLayer round_to_nearest(const Buffer& weight, const UniformGrid& grid, Backend& backend,
                              Monitor& monitor);

/// Rounding with feedback (LDLQ = GPTQ) and coordinate descent afterwards.
struct FeedbackOptions {
    double damp = 0.01;
    bool act_order = true;
    int tune_passes = 2;
    Codebook codebook = Codebook::Uniform;
    bool rotate = false; ///< in the rotated basis
};
Result<RoundedLayer> round_against_moments(const LayerProblem& problem, const UniformGrid& grid,
                                           const FeedbackOptions& options, Backend& backend,
                                           Monitor& monitor);

/// Mean grid step, or the lattice's scale, / RMS(W) (methods-joint §1.6); 0 for a zero weight.
double quantization_scale(const RoundedLayer& layer, double weight_rms, Backend& backend);
double root_mean_square(const Buffer& weight, Backend& backend);

/// Q into a decomposition of `problem`, with its quantization scale.
Decomposition decomposition_of(const LayerProblem& problem, const RoundedLayer& layer, Backend& backend);

/// The decomposition itself, unless arithmetic left the range of float32: then an error, so that no NaN goes
/// further.
Result<Decomposition> finite_or_error(Decomposition decomposition, const LayerProblem& problem);

} // namespace rankscope
