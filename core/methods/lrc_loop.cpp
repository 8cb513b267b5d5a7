// SPDX-License-Identifier: GPL-3.0-or-later
//
// Everything is kept as columns of inputs (in × out), so that triangular solves act on them as they lie. With
// the factors Σ_x = C_x·C_xᵀ and Σ_y = C_y·C_yᵀ, T = C_y⁻¹·Σ_xyᵀ·Wᵀ and, for a Ŵ, N = C_xᵀ·Wᵀ −
// C_x⁻¹·Σ_xy·Ŵᵀ:
//   start:   A = ‖C_xᵀ·Wᵀ‖² − ‖T‖² as Gram matrices (out × out), U its leading eigenvectors, V = Wᵀ·U;
//   Ŵ step:  W̃ᵀ = C_y⁻ᵀ·(T − C_y⁻¹·Σ_xyᵀ·V·Uᵀ);
//   UV step: U = the leading eigenvectors of Nᵀ·N = M·Σ_x·Mᵀ, V = C_x⁻ᵀ·N·U = Mᵀ·U;
//   f = ‖Ŵ·C_y‖² − ‖C_x⁻¹·Σ_xy·Ŵᵀ‖² + ‖N − C_xᵀ·V·Uᵀ‖², where the last term is ‖N‖² − ‖N·U‖² after a UV step.
// No inverse of a moment is formed, and no difference of large matrices but in A. Rows of T stand in the
// reverse order of the inputs: the factor of the reversed Σ_y is the one that GPTQ needs, too.
#include "core/methods/lrc_loop.h"

#include "core/base/random.h"
#include "core/linalg/weighted_low_rank.h"
#include "core/methods/layer_rounding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace rankscope {
namespace {

constexpr Index k_double_elements =
    Index{512} * 512;                  ///< up to so many weights float64 costs nothing to speak of
constexpr Index k_exact_outputs = 768; ///< up to so many outputs all eigenvectors cost less than an iteration
constexpr int k_start_sweeps = 4;      ///< of the subspace iteration from random columns
constexpr int k_sweeps = 2;            ///< from the columns before

/// Σ + ρ·mean(diag Σ)·I, and its factor: C lower triangular, C·Cᵀ, with rows and columns in `order`'s
/// reverse. Further damping where that is not positive definite, as everywhere.
struct Factored {
    MatrixD damped;
    ReversedFactor factor;
};

Result<Factored> factored(const MatrixD& moments, double damp, const std::vector<Index>& order,
                          Backend& backend, Monitor& monitor)
{
    MatrixD damped = 0.5 * (moments + moments.transpose());
    damped.diagonal().array() += damp * damped.diagonal().mean();
    auto factor = reversed_cholesky(damped, order, backend, monitor);
    if (!factor)
        return factor.error();
    // What a retry has added belongs to the objective, too.
    const double mean = damped.diagonal().mean();
    damped.diagonal().array() += factor->damping * (mean > 0.0 ? mean : 1.0);
    return Factored{std::move(damped), std::move(*factor)};
}

double squared_norm(const Buffer& a, Backend& backend) { return a.empty() ? 0.0 : backend.dot(a, a); }

/// U, and V with C_xᵀ·V beside it. Empty buffers: zero.
struct Correction {
    Buffer left;     ///< U: out × rank, orthonormal columns
    Buffer right;    ///< V: in × rank
    Buffer weighted; ///< C_xᵀ·V
    Buffer basis;    ///< out × twice the rank: spans U and more, where U came from a subspace iteration
};

struct LrcState {
    RoundedLayer layer;
    Correction correction;
    double objective = 0.0;
    double scale = 0.0;
    double norm_qy = 0.0;
    double norm_lrx = 0.0;
};

class LrcLoop {
public:
    LrcLoop(const LayerProblem& problem, const LrcOptions& options, Backend& backend, Monitor& monitor)
        : problem_(problem), options_(options), backend_(backend), monitor_(monitor),
          precision_(problem.weight.size() <= k_double_elements ? Precision::Float64 : Precision::Float32),
          weight_(backend.convert(problem.weight, precision_)),
          exact_(options.exact || weight_.rows() <= k_exact_outputs),
          weight_rms_(root_mean_square(problem.weight, backend))
    {}

    Status prepare(const LrcMoments& moments);
    void start();
    void iterate();
    void tune();
    Decomposition finish();

private:
    Status prepare_rounding(const Factored& moments, std::vector<Index> order);
    void begin_step(const char* stage);
    Buffer target() const;
    void quantize(bool tuned_only);
    void refresh_remainder();
    void fit_correction();
    void keep_best();
    void record(std::string stage);
    /// The `rank` leading eigenvectors of a Gram matrix (out × out), of a large one by subspace iteration
    /// from state_.correction.basis.
    Buffer leading(Buffer gram);
    Buffer gram_of(const Buffer& columns) const;
    Buffer random_columns(Index count) const;
    double relative(double squared) const;

    const LayerProblem& problem_;
    const LrcOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Precision precision_; // of everything below that is not said to be otherwise
    Buffer weight_;
    bool exact_; // all eigenvectors
    double weight_rms_;
    std::vector<Index> falling_; // the inputs from the last to the first

    Buffer lower_x_;    // C_x
    Buffer lower_y_;    // C_y of the reversed inputs
    Buffer xy_;         // Σ_xy
    Buffer xy_back_;    // Σ_xy with reversed columns
    Buffer yy_;         // Σ_y
    Buffer weighted_x_; // C_xᵀ·Wᵀ: in × out
    Buffer weighted_y_; // T: in × out
    double norm_wx_ = 0.0;
    std::optional<FeedbackFactor> factor_; // of Σ_y; none when rounding to nearest

    LrcState state_;
    std::optional<LrcState> best_;
    Buffer remainder_;              // N of the current Ŵ
    double norm_remainder_ = 0.0;   // ‖N‖²
    double norm_unreachable_ = 0.0; // ‖Ŵ·C_y‖² − ‖C_x⁻¹·Σ_xy·Ŵᵀ‖²
    int steps_ = 0;
    int total_steps_ = 1;
    Matrix start_low_rank_;
    std::vector<IterationReport> trace_;
};

Status LrcLoop::prepare(const LrcMoments& moments)
{
    begin_step("moments");
    std::vector<Index> rising(static_cast<std::size_t>(weight_.cols()));
    std::iota(rising.begin(), rising.end(), Index{0});
    falling_.assign(rising.rbegin(), rising.rend());
    const auto x =
        factored(moments.xx, options_.damp, falling_, backend_, monitor_); // twice reversed: as it is
    if (!x)
        return x.error().in(problem_.name);
    lower_x_ = backend_.convert(backend_.upload(x->factor.lower), precision_);
    monitor_.throw_if_cancelled();
    auto y = factored(moments.yy, options_.damp, rising, backend_, monitor_);
    if (!y)
        return y.error().in(problem_.name);
    lower_y_ = backend_.convert(backend_.upload(y->factor.lower), precision_);
    if (auto ready = prepare_rounding(*y, rising); !ready)
        return ready;
    yy_ = backend_.convert(backend_.upload(y->damped), precision_);
    xy_ = backend_.convert(backend_.upload(moments.xy), precision_);
    xy_back_ = backend_.gather_columns(xy_, falling_);
    monitor_.throw_if_cancelled();
    weighted_x_ = backend_.multiply(lower_x_, Transpose::Yes, weight_, Transpose::Yes);
    norm_wx_ = squared_norm(weighted_x_, backend_);
    monitor_.throw_if_cancelled();
    weighted_y_ = backend_.multiply(xy_back_, Transpose::Yes, weight_, Transpose::Yes);
    backend_.solve_lower(lower_y_, Transpose::No, weighted_y_);
    total_steps_ = 2 * options_.iterations + 2;
    return {};
}

Status LrcLoop::prepare_rounding(const Factored& moments, std::vector<Index> order)
{
    monitor_.throw_if_cancelled();
    if (!options_.feedback)
        return {};
    if (!options_.act_order) {
        factor_ = FeedbackFactor::from_reversed(moments.factor, std::move(order), backend_);
        return {};
    }
    auto factor = FeedbackFactor::make(moments.damped, true, backend_, monitor_);
    if (!factor)
        return factor.error().in(problem_.name);
    factor_ = std::move(*factor);
    return {};
}

void LrcLoop::begin_step(const char* stage)
{
    monitor_.throw_if_cancelled();
    monitor_.report(static_cast<std::uint64_t>(std::min(steps_, total_steps_)),
                    static_cast<std::uint64_t>(total_steps_), stage);
}

Buffer LrcLoop::random_columns(Index count) const
{
    const RandomStream stream(problem_.seed, problem_.name + "/lrc");
    MatrixD columns(weight_.rows(), count);
    for (Index i = 0; i < columns.size(); ++i)
        columns.data()[i] = stream.normal(static_cast<std::uint64_t>(i));
    return backend_.convert(backend_.upload(columns), precision_);
}

Buffer LrcLoop::leading(Buffer gram)
{
    const Index outputs = gram.rows();
    const Index columns = 2 * options_.rank; // twice the rank: spectra are flat
    if (exact_ || 2 * columns > outputs)
        return backend_.convert(
            backend_.top_eigen(backend_.convert(gram, Precision::Float64), options_.rank).vectors,
            precision_);
    Buffer& basis = state_.correction.basis;
    const int sweeps = basis.empty() ? k_start_sweeps : k_sweeps;
    if (basis.empty())
        basis = random_columns(columns);
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        monitor_.throw_if_cancelled();
        basis = backend_.multiply(gram, basis);
        backend_.orthonormalize(basis);
    }
    // Of the wider space its best `rank` directions. It held the U before, and neither a sweep nor this
    // choice can lose energy of the Gram matrix: the objective falls as with all eigenvectors.
    const Buffer small =
        backend_.multiply(basis, Transpose::Yes, backend_.multiply(gram, basis), Transpose::No);
    const Buffer vectors = backend_.convert(
        backend_.top_eigen(backend_.convert(small, Precision::Float64), options_.rank).vectors, precision_);
    return backend_.multiply(basis, vectors);
}

/// columnsᵀ·columns, in the precision of what it is made of.
Buffer LrcLoop::gram_of(const Buffer& columns) const
{
    Buffer gram = backend_.allocate(columns.cols(), columns.cols(), precision_);
    backend_.gram(1.0, columns, Transpose::Yes, 0.0, gram);
    return gram;
}

void LrcLoop::start()
{
    const double relaxed = norm_wx_ - squared_norm(weighted_y_, backend_);
    state_.objective = relaxed;
    if (options_.rank > 0 && options_.relaxed_start) {
        begin_step("start");
        Buffer gram = gram_of(weighted_x_);
        backend_.gram(-1.0, weighted_y_, Transpose::Yes, 1.0, gram);
        Correction& correction = state_.correction;
        correction.left = leading(std::move(gram));
        correction.right = backend_.multiply(weight_, Transpose::Yes, correction.left, Transpose::No);
        correction.weighted = backend_.multiply(weighted_x_, correction.left);
        state_.norm_lrx = squared_norm(correction.weighted, backend_);
        state_.objective = relaxed - state_.norm_lrx
                           + squared_norm(backend_.multiply(weighted_y_, correction.left), backend_);
        if (problem_.keep_iterates)
            start_low_rank_ = backend_.download(
                backend_.multiply(correction.left, Transpose::No, correction.right, Transpose::Yes));
    }
    ++steps_;
    record("start");
}

/// W̃ = (W − U·Vᵀ)·Σ_xy·Σ_y⁻¹: out × in.
Buffer LrcLoop::target() const
{
    Buffer columns = backend_.copy(weighted_y_);
    if (!state_.correction.left.empty()) {
        Buffer taken = backend_.multiply(xy_back_, Transpose::Yes, state_.correction.right, Transpose::No);
        backend_.solve_lower(lower_y_, Transpose::No, taken);
        backend_.gemm(-1.0, taken, Transpose::No, state_.correction.left, Transpose::Yes, 1.0, columns);
    }
    monitor_.throw_if_cancelled();
    backend_.solve_lower(lower_y_, Transpose::Yes, columns);
    // In float32, as weights are rounded, and in the inputs' order.
    if (precision_ != Precision::Float32)
        columns = backend_.convert(columns, Precision::Float32);
    return backend_.gather_columns(backend_.transposed(columns), falling_);
}

/// What follows from a new Ŵ, and the objective with the U and V there are.
void LrcLoop::refresh_remainder()
{
    monitor_.throw_if_cancelled();
    const Buffer values = backend_.convert(state_.layer.rounded.values, precision_);
    state_.scale = quantization_scale(state_.layer, weight_rms_, backend_);
    state_.norm_qy = std::max(0.0, backend_.dot(gram_of(values), yy_));
    monitor_.throw_if_cancelled();
    Buffer seen = backend_.multiply(xy_, Transpose::No, values, Transpose::Yes);
    backend_.solve_lower(lower_x_, Transpose::No, seen);
    norm_unreachable_ = state_.norm_qy - squared_norm(seen, backend_);
    remainder_ = backend_.difference(weighted_x_, seen);
    norm_remainder_ = squared_norm(remainder_, backend_);
    const Correction& correction = state_.correction;
    double corrected = norm_remainder_;
    if (!correction.left.empty())
        corrected +=
            squared_norm(correction.weighted, backend_)
            - 2.0 * backend_.dot(backend_.multiply(remainder_, correction.left), correction.weighted);
    state_.objective = norm_unreachable_ + corrected;
}

void LrcLoop::quantize(bool tuned_only)
{
    const Buffer wanted = target();
    monitor_.throw_if_cancelled();
    RoundedLayer& layer = state_.layer;
    if (tuned_only) {
        layer = tuned(wanted, layer, yy_, options_.tune_passes, backend_, monitor_);
    } else {
        layer = {};
        layer.bits = options_.grid.bits;
        layer.grid = fit_grid(wanted, options_.grid, backend_, monitor_);
        layer.rounded = factor_ ? factor_->round(wanted, layer.grid, backend_, monitor_)
                                : backend_.round_nearest(wanted, layer.grid);
    }
    refresh_remainder();
}

void LrcLoop::fit_correction()
{
    if (options_.rank == 0)
        return;
    Correction& correction = state_.correction;
    correction.left = leading(gram_of(remainder_));
    correction.weighted = backend_.multiply(remainder_, correction.left);
    correction.right = backend_.copy(correction.weighted);
    backend_.solve_lower(lower_x_, Transpose::Yes, correction.right);
    state_.norm_lrx = squared_norm(correction.weighted, backend_);
    state_.objective = norm_unreachable_ + norm_remainder_ - state_.norm_lrx;
}

void LrcLoop::keep_best()
{
    if (!best_ || state_.objective < best_->objective)
        best_ = state_;
}

void LrcLoop::iterate()
{
    // Without a correction every iteration would repeat the first.
    const int iterations = options_.rank > 0 ? options_.iterations : 1;
    for (int iteration = 0; iteration < iterations; ++iteration) {
        begin_step("Q");
        quantize(false);
        ++steps_;
        record("Q");
        if (options_.rank > 0) {
            begin_step("LR");
            fit_correction();
            ++steps_;
            record("LR");
        }
        keep_best();
    }
}

void LrcLoop::tune()
{
    state_ = *best_; // there is one since the end of the first iteration
    if (options_.tune_passes == 0)
        return;
    begin_step("Q");
    quantize(true);
    ++steps_;
    record("Q");
    if (options_.rank > 0) {
        fit_correction();
        ++steps_;
        record("LR");
    }
    keep_best();
    state_ = *best_;
}

double LrcLoop::relative(double squared) const
{
    if (norm_wx_ > 0.0)
        return std::sqrt(std::max(squared, 0.0) / norm_wx_);
    return squared > 0.0 ? 1.0 : 0.0;
}

void LrcLoop::record(std::string stage)
{
    IterationReport report;
    report.step = steps_ - 1;
    report.stage = std::move(stage);
    report.relative_activation_error = relative(state_.objective);
    report.quantization_scale = state_.scale;
    report.ratio_qx = relative(state_.norm_qy);
    report.ratio_lrx = relative(state_.norm_lrx);
    if (problem_.keep_iterates) {
        if (!state_.layer.rounded.values.empty())
            report.quantized = backend_.download(state_.layer.rounded.values);
        if (!state_.correction.left.empty()) {
            report.left = backend_.download(state_.correction.left);
            report.right = backend_.download(state_.correction.right).transpose();
        }
    }
    trace_.push_back(std::move(report));
}

Decomposition LrcLoop::finish()
{
    Decomposition result = decomposition_of(problem_, state_.layer, backend_);
    result.quantization_scale = state_.scale;
    result.activations = options_.activations;
    if (!state_.correction.left.empty()) {
        result.low_rank.left = backend_.download(state_.correction.left);
        result.low_rank.right = backend_.download(state_.correction.right).transpose();
        balance(result.low_rank.left, result.low_rank.right);
    }
    result.start_low_rank = std::move(start_low_rank_);
    result.trace = std::move(trace_);
    return result;
}

} // namespace

Result<Decomposition> correct_activations(const LayerProblem& problem, const LrcMoments& moments,
                                          const LrcOptions& options, Backend& backend, Monitor& monitor)
{
    LrcLoop loop(problem, options, backend, monitor);
    if (auto ready = loop.prepare(moments); !ready)
        return ready.error();
    loop.start();
    loop.iterate();
    loop.tune();
    return finite_or_error(loop.finish(), problem);
}

} // namespace rankscope
