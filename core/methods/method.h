// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/moments.h"
#include "core/compute/activation_quantization.h"
#include "core/compute/backend.h"
#include "core/linalg/incoherence.h"
#include "core/methods/method_info.h"
#include "core/quantize/quantized_factors.h"
#include "core/quantize/quantized_matrix.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace rankscope {

/// One weight matrix to be decomposed. `weight` is float32, out × in, on the backend; finite.
struct LayerProblem {
    Buffer weight;
    const Moments* moments = nullptr; ///< null when the method does not need them
    std::string name;                 ///< keys the random numbers and the messages
    std::uint64_t seed = 0;
    bool keep_iterates = false;             ///< fill IterationReport's matrices (teaching, --trace)
    const Incoherence* transform = nullptr; ///< signs to use instead of those that follow from the seed
};

struct LowRank {
    Matrix left;  ///< out × rank; 0 columns when there is none
    Matrix right; ///< rank × in
    Index rank() const { return left.cols(); }
};

/// One half-step of an iterative method, for plots and the tour. Errors use the damped H the optimiser sees.
struct IterationReport {
    int step = 0;
    std::string stage; ///< "start", "Q", "LR"
    double relative_activation_error = 0.0;
    double quantization_scale = 0.0; ///< mean grid step / RMS(W); 0 before the first Q
    double ratio_qx = 0.0;           ///< ‖Q·X‖ / ‖W·X‖; ‖Q·Y‖ with quantized activations Y
    double ratio_lrx = 0.0;          ///< ‖L·R·X‖ / ‖W·X‖
    Matrix quantized, left, right;   ///< only with keep_iterates; in the basis of the weight
};

/// W ≈ Q + L·R and how it came about. With a transform, Q, L and R are stored in the rotated basis.
struct Decomposition {
    QuantizedMatrix quantized;
    LowRank low_rank;
    Incoherence transform;
    std::vector<Index> outlier_channels; ///< ODLRI's set, rising; empty elsewhere
    Matrix start_low_rank;               ///< L₀·R₀ before the first Q step (ODLRI, LRC); may be empty
    double quantization_scale = 0.0;
    std::vector<IterationReport> trace;
    FactorOptions factors; ///< how L and R are stored
    ActivationQuantization activations; ///< of the input that Q meets; L·R meets it as it is

    Matrix reconstruct() const; ///< Q + L·R, in the basis of the weight
    /// Exact bits per weight incl. scales, zero points, factors and signs.
    double bits_per_weight() const;
};

/// Errors of a decomposition against its weight; H undamped (methods-joint §0). Of one with quantized
/// activations y, where the moments hold theirs: ‖W·X − Q·Y − L·R·X‖ / ‖W·X‖ and ‖Q·Y‖ / ‖W·X‖.
struct DecompositionQuality {
    double relative_error = 0.0; ///< ‖W − Ŵ‖_F / ‖W‖_F
    double relative_activation_error = 0.0; ///< ‖(W − Ŵ)·H^½‖_F / ‖W·H^½‖_F; equals relative_error without H
    double ratio_qx = 0.0;
    double ratio_lrx = 0.0;
};
DecompositionQuality measure(const Matrix& weight, const Decomposition& decomposition,
                             const Moments* moments);

/// A pure function of its problem, parameters and seed.
class Method {
public:
    virtual ~Method() = default;
    virtual const MethodInfo& info() const = 0;
    /// Errors: Usage (rank beyond the matrix …), BadInput (non-finite weight). Throws Cancelled,
    /// BackendFailure.
    virtual Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                            Backend& backend, Monitor& monitor) const = 0;
};

/// All methods, in the order in which they are shown. Adding one: methods/foo.{h,cpp} and a line in
/// registry.cpp.
std::span<const Method* const> methods();
/// Null when there is no such method.
const Method* find_method(std::string_view id);
/// BadInput-free lookup for users: Usage error that lists the known ids.
Result<const Method*> require_method(std::string_view id);

/// Checks common to all methods: shape not empty, weight finite, rank ≤ min(out, in), moments present and of
/// the right size and finite when needed.
Status check_problem(const LayerProblem& problem, const MethodInfo& info, const Parameters& parameters,
                     Backend& backend);

/// How the method rounds activations with these parameters: its activation_bits and clip, if it has them.
ActivationQuantization activations_of(const MethodInfo& info, const Parameters& parameters);

/// Whether a calibration that rounded activations like `calibrated` serves a method with
/// these parameters. Errors: Usage, naming `layer`.
Status check_activations(const MethodInfo& info, const Parameters& parameters,
                         const ActivationQuantization& calibrated, const std::string& layer);

/// The part of check_problem about moments, for methods that need them with some parameters only.
Status check_moments(const LayerProblem& problem);

} // namespace rankscope
