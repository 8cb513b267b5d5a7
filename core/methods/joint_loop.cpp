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
        : problem_(problem), weight_(layer.weight), options_(options), backend_(backend), monitor_(monitor),
          hessian_(backend.upload(layer.hessian)), weight_rms_(root_mean_square(layer.weight, backend)),
          weight_norm_(weighted_squared_norm(layer.weight, hessian_, backend))
    {}

    Status prepare(const MatrixD& hessian);
    void begin(const JointStart& start);
    void iterate();
    Decomposition finish(const MatrixD& hessian);

private:
    void quantize();
    void fit_low_rank();
    void half_step(bool quantization);
    void record(std::string stage);
    bool stalled(int iteration);
    Buffer minus_low_rank(
        const Buffer& from) const; ///< a new buffer `from` − L·R, or `from` itself when L·R is zero
    double low_rank_squared_norm() const; ///< ‖L·R·H^½‖², without forming L·R
    double relative(double squared) const;

    const LayerProblem& problem_;
    Buffer weight_;
    const JointOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Buffer hessian_;
    double weight_rms_;
    double weight_norm_;
    std::optional<FeedbackFactor> factor_;
    JointState state_;
    std::optional<JointState> best_;
    bool quantized_ = false;
    bool fitted_ = false;
    int half_steps_ = 0;
    double reference_error_ = 0.0; ///< best error when it last fell by the least gain
    int reference_iteration_ = 0;
    std::vector<IterationReport> trace_;
};

Status JointLoop::prepare(const MatrixD& hessian)
{
    auto factor = FeedbackFactor::make(hessian, options_.act_order, backend_, monitor_);
    if (!factor)
        return factor.error().in(problem_.name);
    factor_ = std::move(*factor);
    return {};
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
    state_.left = start.left;
    state_.right = start.right;
    if (start.left.empty())
        return;
    state_.error = relative(weighted_squared_norm(minus_low_rank(weight_), hessian_, backend_));
    state_.norm_lr = low_rank_squared_norm();
    record("start");
}

void JointLoop::quantize()
{
    const Buffer target = minus_low_rank(weight_);
    state_.layer.grid = fit_grid(target, options_.grid, backend_, monitor_);
    state_.layer.rounded = factor_->round(target, state_.layer.grid, backend_, monitor_);
    state_.scale = quantization_scale(state_.layer.grid, weight_rms_, backend_);
    const Buffer& values = state_.layer.rounded.values;
    state_.norm_q = weighted_squared_norm(values, hessian_, backend_);
    state_.error = relative(weighted_squared_norm(backend_.difference(target, values), hessian_, backend_));
    quantized_ = true;
}

void JointLoop::fit_low_rank()
{
    fitted_ = true;
    const Buffer rest = quantized_ ? backend_.difference(weight_, state_.layer.rounded.values) : weight_;
    if (options_.rank > 0) {
        const LowRankBuffers factors = weighted_low_rank(rest, hessian_, options_.rank, backend_);
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
        if (quantized_)
            report.quantized = backend_.download(state_.layer.rounded.values);
        if (!state_.left.empty()) {
            report.left = backend_.download(state_.left);
            report.right = backend_.download(state_.right);
        }
    }
    trace_.push_back(std::move(report));
}

void JointLoop::half_step(bool quantization)
{
    monitor_.throw_if_cancelled();
    monitor_.report(static_cast<std::uint64_t>(half_steps_),
                    static_cast<std::uint64_t>(2 * options_.iterations), quantization ? "Q" : "LR");
    if (quantization)
        quantize();
    else
        fit_low_rank();
    ++half_steps_;
    record(quantization ? "Q" : "LR");
    if (quantized_ && fitted_ && (!best_ || state_.error < best_->error))
        best_ = state_;
}

bool JointLoop::stalled(int iteration)
{
    if (iteration == 0 || best_->error < (1.0 - k_least_gain) * reference_error_) {
        reference_error_ = best_->error;
        reference_iteration_ = iteration;
    }
    return iteration - reference_iteration_ >= k_patience;
}

void JointLoop::iterate()
{
    // Without a low-rank part the second iteration would repeat the first.
    const int iterations = options_.rank > 0 ? options_.iterations : 1;
    for (int iteration = 0; iteration < iterations; ++iteration) {
        half_step(!options_.low_rank_first);
        half_step(options_.low_rank_first);
        if (options_.early_stop && stalled(iteration))
            break;
    }
}

Decomposition JointLoop::finish(const MatrixD& hessian)
{
    state_ = *best_; // there is one since the end of the first iteration
    state_.layer.rounded = tune_rounding(minus_low_rank(weight_), state_.layer.rounded, hessian,
                                         state_.layer.grid, options_.tune_passes, backend_, monitor_);
    Decomposition result = decomposition_of(problem_, state_.layer, backend_);
    result.quantization_scale = state_.scale;
    if (!state_.left.empty()) {
        result.low_rank.left = backend_.download(state_.left);
        result.low_rank.right = backend_.download(state_.right);
        balance(result.low_rank.left, result.low_rank.right);
    }
    result.trace = std::move(trace_);
    return result;
}

} // namespace

std::vector<ParameterInfo> joint_parameters()
{
    return grid_parameters(2) + std::vector{rank_parameter(),       iterations_parameter(),
                                            early_stop_parameter(), damp_parameter(),
                                            act_order_parameter(),  tune_passes_parameter()};
}

JointOptions joint_options(const Parameters& parameters)
{
    JointOptions options;
    options.grid = grid_of(parameters);
    options.rank = parameters.integer("rank");
    options.iterations = static_cast<int>(parameters.integer("iterations"));
    options.early_stop = parameters.flag("early_stop");
    options.act_order = parameters.flag("act_order");
    options.tune_passes = static_cast<int>(parameters.integer("tune_passes"));
    return options;
}

Result<Decomposition> alternate(const LayerProblem& problem, const DampedLayer& layer,
                                const JointOptions& options, const JointStart& start, Backend& backend,
                                Monitor& monitor)
{
    JointLoop loop(problem, layer, options, backend, monitor);
    if (auto ready = loop.prepare(layer.hessian); !ready)
        return ready.error();
    loop.begin(start);
    loop.iterate();
    return finite_or_error(loop.finish(layer.hessian), problem);
}

} // namespace rankscope
