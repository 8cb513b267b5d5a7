// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/joint_loop.h"

#include "core/linalg/weighted_low_rank.h"
#include "core/methods/common_parameters.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace rankscope {
namespace {

constexpr int k_patience = 3;          ///< iterations without gain before the early stop
constexpr double k_least_gain = 0.001; ///< of the best error

/// Everything that a half-step may change. Buffers are handles, and no step writes into an old one, so that a
/// copy of the state is a cheap and safe record of an iterate.
struct JointState {
    RoundedLayer layer;   ///< no values before the first Q step
    Buffer left, right;   ///< empty: zero
    double error = 1.0;   ///< relative activation error with the damped H
    double scale = 0.0;   ///< quantization scale
    double norm_q = 0.0;  ///< ‖Q·H^½‖²
    double norm_lr = 0.0; ///< ‖L·R·H^½‖²
};

class JointLoop {
public:
    JointLoop(const LayerProblem& problem, const DampedLayer& layer, const JointOptions& options,
              Backend& backend, Monitor& monitor)
        : problem_(problem), layer_(layer), weight_(layer.weight), options_(options), backend_(backend),
          monitor_(monitor), hessian_(backend.upload(layer.hessian)),
          weight_rms_(root_mean_square(layer.weight, backend)),
          weight_norm_(weighted_squared_norm(layer.weight, hessian_, backend))
    {}

    Status prepare();
    void begin(const JointStart& start);
    Status iterate();
    Decomposition finish();

private:
    Status quantize();
    void fit_low_rank();
    Status half_step(bool quantization);
    Result<LayerQuantizer> downdated_quantizer() const;
    void record(std::string stage);
    bool stalled(int iteration);
    Buffer minus_low_rank(
        const Buffer& from) const; ///< a new buffer `from` − L·R, or `from` itself when L·R is zero
    double low_rank_squared_norm() const; ///< ‖L·R·H^½‖², without forming L·R
    double relative(double squared) const;

    const LayerProblem& problem_;
    const DampedLayer& layer_;
    Buffer weight_;
    const JointOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Buffer hessian_;
    double weight_rms_;
    double weight_norm_;
    std::optional<LayerQuantizer> quantizer_;
    JointState state_;
    std::optional<JointState> best_;
    bool quantized_ = false;
    bool fitted_ = false;
    int half_steps_ = 0;
    double reference_error_ = 0.0; ///< best error when it last fell by the least gain
    int reference_iteration_ = 0;
    std::vector<IterationReport> trace_;
};

Status JointLoop::prepare()
{
    auto quantizer = LayerQuantizer::make(layer_.hessian, options_.quantizer, backend_, monitor_);
    if (!quantizer)
        return quantizer.error().in(problem_.name);
    quantizer_ = std::move(*quantizer);
    return {};
}

/// Against the H that is left when L is refitted with this R, damped anew: the downdate takes rank R
/// directions out of it altogether.
Result<LayerQuantizer> JointLoop::downdated_quantizer() const
{
    MatrixD hessian = downdated_hessian(hessian_, state_.right, backend_);
    const double whole = layer_.hessian.diagonal().mean();
    // What is left may be rounding errors only, of either sign, when the rank is that of H.
    const double left = std::max(hessian.diagonal().mean(), 0.0);
    hessian.diagonal().array() += options_.damp * left + 1e-9 * whole;
    return LayerQuantizer::make(hessian, options_.quantizer, backend_, monitor_);
}

double JointLoop::relative(double squared) const
{
    if (weight_norm_ > 0.0)
        return std::sqrt(std::max(squared, 0.0) / weight_norm_);
    return squared > 0.0 ? 1.0 : 0.0;
}

Buffer JointLoop::minus_low_rank(const Buffer& from) const
{
    if (state_.left.empty())
        return from;
    Buffer rest = backend_.copy(from);
    backend_.gemm(-1.0, state_.left, Transpose::No, state_.right, Transpose::No, 1.0, rest);
    return rest;
}

double JointLoop::low_rank_squared_norm() const
{
    const Buffer left = backend_.convert(state_.left, Precision::Float64);
    const Buffer right = backend_.convert(state_.right, Precision::Float64);
    const Buffer metric =
        backend_.multiply(backend_.multiply(right, hessian_), Transpose::No, right, Transpose::Yes);
    return backend_.dot(backend_.multiply(left, Transpose::Yes, left, Transpose::No), metric);
}

void JointLoop::begin(const JointStart& start)
{
    state_.left = layer_.transform.left_factor(start.left, backend_);
    state_.right = layer_.transform.right_factor(start.right, backend_);
    if (start.left.empty())
        return;
    state_.error = relative(weighted_squared_norm(minus_low_rank(weight_), hessian_, backend_));
    state_.norm_lr = low_rank_squared_norm();
    record("start");
}

Status JointLoop::quantize()
{
    const Buffer target = minus_low_rank(weight_);
    if (options_.downdate && !state_.right.empty()) {
        const auto quantizer = downdated_quantizer();
        if (!quantizer)
            return quantizer.error().in(problem_.name);
        state_.layer = quantizer->round(target, backend_, monitor_);
    } else {
        state_.layer = quantizer_->round(target, backend_, monitor_);
    }
    state_.scale = quantization_scale(state_.layer, weight_rms_, backend_);
    const Buffer& values = state_.layer.rounded.values;
    state_.norm_q = weighted_squared_norm(values, hessian_, backend_);
    state_.error = relative(weighted_squared_norm(backend_.difference(target, values), hessian_, backend_));
    quantized_ = true;
    return {};
}

void JointLoop::fit_low_rank()
{
    fitted_ = true;
    const Buffer rest = quantized_ ? backend_.difference(weight_, state_.layer.rounded.values) : weight_;
    if (options_.rank > 0) {
        const LowRankBuffers factors =
            quantized_low_rank(rest, hessian_, options_.rank, options_.factors, backend_, monitor_);
        state_.left = factors.left;
        state_.right = factors.right;
        state_.norm_lr = low_rank_squared_norm();
    }
    state_.error = relative(weighted_squared_norm(minus_low_rank(rest), hessian_, backend_));
}

void JointLoop::record(std::string stage)
{
    IterationReport report;
    report.step = half_steps_;
    report.stage = std::move(stage);
    report.relative_activation_error = state_.error;
    report.quantization_scale = state_.scale;
    report.ratio_qx = relative(state_.norm_q);
    report.ratio_lrx = relative(state_.norm_lr);
    if (problem_.keep_iterates) {
        const Incoherence& transform = layer_.transform;
        if (quantized_)
            report.quantized =
                transform.restored_weight(backend_.download(state_.layer.rounded.values), backend_);
        if (!state_.left.empty()) {
            report.left = transform.restored_left(backend_.download(state_.left), backend_);
            report.right = transform.restored_right(backend_.download(state_.right), backend_);
        }
    }
    trace_.push_back(std::move(report));
}

Status JointLoop::half_step(bool quantization)
{
    monitor_.throw_if_cancelled();
    monitor_.report(static_cast<std::uint64_t>(half_steps_),
                    static_cast<std::uint64_t>(2 * options_.iterations), quantization ? "Q" : "LR");
    if (!quantization)
        fit_low_rank();
    else if (auto done = quantize(); !done)
        return done;
    ++half_steps_;
    record(quantization ? "Q" : "LR");
    if (quantized_ && fitted_ && (!best_ || state_.error < best_->error))
        best_ = state_;
    return {};
}

bool JointLoop::stalled(int iteration)
{
    if (iteration == 0 || best_->error < (1.0 - k_least_gain) * reference_error_) {
        reference_error_ = best_->error;
        reference_iteration_ = iteration;
    }
    return iteration - reference_iteration_ >= k_patience;
}

Status JointLoop::iterate()
{
    // Without a low-rank part the second iteration would repeat the first.
    const int iterations = options_.rank > 0 ? options_.iterations : 1;
    for (int iteration = 0; iteration < iterations; ++iteration) {
        for (const bool quantization : {!options_.low_rank_first, options_.low_rank_first})
            if (auto done = half_step(quantization); !done)
                return done;
        if (options_.early_stop && stalled(iteration))
            break;
    }
    return {};
}

Decomposition JointLoop::finish()
{
    state_ = *best_; // there is one since the end of the first iteration
    state_.layer = tuned(minus_low_rank(weight_), state_.layer, layer_.hessian, options_.tune_passes,
                         backend_, monitor_);
    state_.layer.transform = layer_.transform;
    Decomposition result = decomposition_of(problem_, state_.layer, backend_);
    result.quantization_scale = state_.scale;
    result.factors = options_.factors;
    if (!state_.left.empty()) {
        result.low_rank.left = backend_.download(state_.left);
        result.low_rank.right = backend_.download(state_.right);
        if (options_.factors.bits >= 16) // others must stay on their grid
            balance(result.low_rank.left, result.low_rank.right);
    }
    result.trace = std::move(trace_);
    return result;
}

} // namespace

std::vector<ParameterInfo> joint_parameters()
{
    return grid_parameters(2) + codebook_parameters() + std::vector{rank_parameter()} + factor_parameters()
           + std::vector{
               iterations_parameter(),
               early_stop_parameter(),
               damp_parameter(),
               flag_parameter("hessian_downdate", "Hessian downdate", false,
                              "Rounds Q against what is left of the moments once L is refitted, instead of "
                              "all of them: Q's own error grows, that of Q + L·R falls with 16-bit "
                              "factors."),
               act_order_parameter(),
               tune_passes_parameter()};
}

Result<JointOptions> joint_options(const Parameters& parameters)
{
    if (auto known = check_codebook(parameters); !known)
        return known.error();
    JointOptions options;
    options.quantizer = {codebook_of(parameters), grid_of(parameters), parameters.flag("act_order")};
    options.rotate = rotates(parameters);
    options.downdate = parameters.flag("hessian_downdate");
    options.damp = parameters.real("damp");
    options.factors = factors_of(parameters);
    options.rank = parameters.integer("rank");
    options.iterations = static_cast<int>(parameters.integer("iterations"));
    options.early_stop = parameters.flag("early_stop");
    options.tune_passes = static_cast<int>(parameters.integer("tune_passes"));
    return options;
}

Result<Decomposition> alternate(const LayerProblem& problem, const DampedLayer& layer,
                                const JointOptions& options, const JointStart& start, Backend& backend,
                                Monitor& monitor)
{
    const DampedLayer seen = options.rotate ? rotated_layer(problem, layer, backend) : layer;
    JointLoop loop(problem, seen, options, backend, monitor);
    if (auto ready = loop.prepare(); !ready)
        return ready.error();
    loop.begin(start);
    if (auto done = loop.iterate(); !done)
        return done.error();
    return finite_or_error(loop.finish(), problem);
}

} // namespace rankscope
