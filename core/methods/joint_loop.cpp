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
constexpr double k_least_share = 1e-3; ///< below this share of its terms a difference is computed anew

/// Everything that a half-step may change. Buffers are handles, and no step writes into an old one, so that a
/// copy of the state is a cheap and safe record of an iterate.
struct JointState {
    RoundedLayer layer;     ///< no values before the first Q step
    LowRankBuffers factors; ///< empty: zero
    double error = 1.0;     ///< relative activation error with the damped H
    double scale = 0.0;     ///< quantization scale
    double norm_q = 0.0;    ///< ‖Q·H^½‖²
};

class JointLoop {
public:
    JointLoop(const LayerProblem& problem, const DampedLayer& layer, const JointOptions& options,
              Backend& backend, Monitor& monitor)
        : problem_(problem), layer_(layer), options_(options), backend_(backend), monitor_(monitor),
          hessian_(backend.upload(layer.hessian)),
          solver_(hessian_, layer.weight.rows(), options.rank, options.solver,
                  RandomStream(problem.seed, problem.name), backend),
          weight_(solver_.precision() == Precision::Float32
                      ? layer.weight
                      : backend.convert(layer.weight, solver_.precision())),
          weighted_weight_(backend.multiply(weight_, solver_.hessian())),
          weight_rms_(root_mean_square(layer.weight, backend)),
          weight_norm_(std::max(0.0, backend.dot(weighted_weight_, weight_))), rest_(weight_),
          rest_norm_(weight_norm_)
    {}

    Status prepare();
    void begin(const JointStart& start);
    Status iterate();
    Decomposition finish();

private:
    Status quantize();
    void fit_low_rank();
    void quantize_start();
    Status half_step(bool quantization);
    Result<LayerQuantizer> downdated_quantizer() const;
    void record(std::string stage);
    bool stalled(int iteration);
    Buffer minus_low_rank(const Buffer& from) const; ///< `from` − L·R, or `from` itself when L·R is zero
    Buffer in_precision(const Buffer& buffer) const;
    double weighted_norm(const Buffer& e) const; ///< tr(E·H·Eᵀ) by the product that all steps avoid
    double relative(double squared) const;
    double part_of_q() const; ///< ‖Q·H^½‖² of Q = W − rest

    const LayerProblem& problem_;
    const DampedLayer& layer_;
    const JointOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Buffer hessian_; ///< float64
    LowRankSolver solver_;
    Buffer weight_;          ///< in the solver's precision, as all that follows
    Buffer weighted_weight_; ///< W·H
    double weight_rms_;
    double weight_norm_; ///< tr(W·H·Wᵀ)
    Buffer rest_;        ///< W − Q
    double rest_norm_;   ///< tr(rest·H·restᵀ)
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
    MatrixD hessian = downdated_hessian(hessian_, state_.factors.right, backend_);
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

Buffer JointLoop::in_precision(const Buffer& buffer) const
{
    return buffer.precision() == solver_.precision() ? buffer : backend_.convert(buffer, solver_.precision());
}

Buffer JointLoop::minus_low_rank(const Buffer& from) const
{
    if (state_.factors.left.empty())
        return from;
    Buffer rest = backend_.copy(from);
    backend_.gemm(-1.0, in_precision(state_.factors.left), Transpose::No, in_precision(state_.factors.right),
                  Transpose::No, 1.0, rest);
    return rest;
}

double JointLoop::weighted_norm(const Buffer& e) const
{
    return backend_.dot(backend_.multiply(e, solver_.hessian()), e);
}

double JointLoop::part_of_q() const
{
    const double norm = weight_norm_ - 2.0 * backend_.dot(rest_, weighted_weight_) + rest_norm_;
    if (norm >= k_least_share * std::max(weight_norm_, rest_norm_))
        return norm;
    return weighted_norm(backend_.difference(weight_, rest_)); // nearly everything cancelled
}

void JointLoop::begin(const JointStart& start)
{
    if (start.left.empty())
        return;
    state_.factors.left = layer_.transform.left_factor(start.left, backend_);
    state_.factors.right = layer_.transform.right_factor(start.right, backend_);
    add_products(state_.factors, solver_.hessian(), backend_);
    state_.error = relative(objective_of(weight_, weight_norm_, state_.factors, solver_.hessian(), backend_));
    record("start");
}

Status JointLoop::quantize()
{
    const Buffer target = minus_low_rank(weight_);
    const Buffer single =
        target.precision() == Precision::Float32 ? target : backend_.convert(target, Precision::Float32);
    if (options_.downdate && !state_.factors.right.empty()) {
        const auto quantizer = downdated_quantizer();
        if (!quantizer)
            return quantizer.error().in(problem_.name);
        state_.layer = quantizer->round(single, backend_, monitor_);
        state_.layer.loss = -1.0; // in another metric
    } else {
        state_.layer = quantizer_->round(single, backend_, monitor_);
    }
    state_.scale = quantization_scale(state_.layer, weight_rms_, backend_);
    const Buffer values = in_precision(state_.layer.rounded.values);
    const Buffer error = backend_.difference(target, values);
    const double loss = state_.layer.loss >= 0.0 ? state_.layer.loss : weighted_norm(error);
    state_.error = relative(loss);
    rest_ = backend_.difference(weight_, values);
    rest_norm_ = loss + 2.0 * cross_term(error, state_.factors, backend_) + state_.factors.squared_norm;
    if (rest_norm_ < k_least_share * std::max(loss, state_.factors.squared_norm))
        rest_norm_ = weighted_norm(rest_);
    state_.norm_q = part_of_q();
    quantized_ = true;
    return {};
}

void JointLoop::fit_low_rank()
{
    fitted_ = true;
    double objective = rest_norm_;
    if (options_.rank > 0) {
        state_.factors =
            quantize_factors(rest_, rest_norm_, solver_.hessian(), solver_.solve(rest_, rest_norm_, monitor_),
                             options_.factors, backend_, monitor_);
        objective = state_.factors.tail;
        if (objective < k_least_share * rest_norm_)
            objective = objective_of(rest_, rest_norm_, state_.factors, solver_.hessian(), backend_);
    }
    state_.error = relative(objective);
}

/// Without refinement the factors that are stored are those of the start: on their grid, then.
void JointLoop::quantize_start()
{
    if (options_.factors.bits >= 16 || state_.factors.left.empty())
        return;
    const Buffer product =
        backend_.multiply(in_precision(state_.factors.left), in_precision(state_.factors.right));
    state_.factors = quantize_factors(product, state_.factors.squared_norm, solver_.hessian(), state_.factors,
                                      options_.factors, backend_, monitor_);
    state_.error = relative(objective_of(weight_, weight_norm_, state_.factors, solver_.hessian(), backend_));
}

void JointLoop::record(std::string stage)
{
    IterationReport report;
    report.step = half_steps_;
    report.stage = std::move(stage);
    report.relative_activation_error = state_.error;
    report.quantization_scale = state_.scale;
    report.ratio_qx = relative(state_.norm_q);
    report.ratio_lrx = relative(state_.factors.squared_norm);
    if (problem_.keep_iterates) {
        const Incoherence& transform = layer_.transform;
        if (quantized_)
            report.quantized =
                transform.restored_weight(backend_.download(state_.layer.rounded.values), backend_);
        if (!state_.factors.left.empty()) {
            report.left = transform.restored_left(backend_.download(state_.factors.left), backend_);
            report.right = transform.restored_right(backend_.download(state_.factors.right), backend_);
        }
    }
    trace_.push_back(std::move(report));
}

Status JointLoop::half_step(bool quantization)
{
    monitor_.throw_if_cancelled();
    monitor_.report(static_cast<std::uint64_t>(half_steps_),
                    static_cast<std::uint64_t>(std::max(2, 2 * options_.iterations)),
                    quantization ? "Q" : "LR");
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
    if (options_.iterations == 0) {
        if (options_.low_rank_first && options_.rank > 0)
            if (auto done = half_step(false); !done)
                return done;
        quantize_start();
        if (auto done = half_step(true); !done)
            return done;
        best_ = state_;
        return {};
    }
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
    Buffer target = minus_low_rank(weight_);
    if (target.precision() != Precision::Float32)
        target = backend_.convert(target, Precision::Float32);
    state_.layer = tuned(target, state_.layer, solver_.hessian(), options_.tune_passes, backend_, monitor_);
    state_.layer.transform = layer_.transform;
    Decomposition result = decomposition_of(problem_, state_.layer, backend_);
    result.quantization_scale = state_.scale;
    result.factors = options_.factors;
    if (!state_.factors.left.empty()) {
        result.low_rank.left = backend_.download(state_.factors.left);
        result.low_rank.right = backend_.download(state_.factors.right);
        if (options_.factors.bits >= 16) // others must stay on their grid
            balance(result.low_rank.left, result.low_rank.right);
    }
    result.trace = std::move(trace_);
    return result;
}

} // namespace

std::vector<ParameterInfo> joint_parameters()
{
    ParameterInfo iterations = iterations_parameter();
    iterations.minimum = 0;
    iterations.help =
        "Rounds of the alternation between Q and L·R at most; the best one is returned. 0: Q is "
        "rounded once to what the start leaves, and nothing is refined.";
    return grid_parameters(2) + codebook_parameters() + std::vector{rank_parameter()} + factor_parameters()
           + std::vector{
               choice_parameter("solver", "Low-rank solver", {"subspace", "exact"},
                                "How the best L·R is found: by a randomized subspace that starts where the "
                                "last iteration ended (within 0.1 % of the least objective), or by all "
                                "eigenvectors that count, in double precision."),
               iterations,
               early_stop_parameter(),
               damp_parameter(),
               flag_parameter("hessian_downdate", "Hessian downdate", false,
                              "Rounds Q against what is left of the moments once L is refitted, instead of "
                              "all of them: Q's own error grows, that of Q + L·R falls with 16-bit "
                              "factors."),
               act_order_parameter(),
               tune_passes_parameter()};
}

JointOptions joint_options(const Parameters& parameters)
{
    JointOptions options;
    options.quantizer = {codebook_of(parameters), grid_of(parameters), parameters.flag("act_order")};
    options.rotate = rotates(parameters);
    options.downdate = parameters.flag("hessian_downdate");
    options.damp = parameters.real("damp");
    options.factors = factors_of(parameters);
    options.rank = parameters.integer("rank");
    options.iterations = static_cast<int>(parameters.integer("iterations"));
    options.early_stop = parameters.flag("early_stop");
    options.factors.early_stop = options.early_stop;
    options.solver = parameters.text("solver") == "exact" ? LowRankMethod::Exact : LowRankMethod::Subspace;
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
    monitor.throw_if_cancelled();
    loop.begin(start);
    if (auto done = loop.iterate(); !done)
        return done.error();
    return finite_or_error(loop.finish(), problem);
}

} // namespace rankscope
