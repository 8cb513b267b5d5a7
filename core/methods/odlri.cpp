// SPDX-License-Identifier: GPL-3.0-or-later
// ODLRI: outlier-driven low-rank initialization (arXiv 2506.02077) of CALDERA's loop.
//
// Idea: before the first rounding, let L₀·R₀ carry the weights that meet outlier activations, so
// that Q sees a smaller and calmer remainder; from then on the loop is CALDERA's (methods-joint
// §5.1).
//
// Equations (§5.2): O = the k channels of largest H_jj, ties by index. H_o = H on O × O, zero
// elsewhere. L₀, R₀ = argmin over rank r of tr((W − L·R)·H_o·(W − L·R)ᵀ). H_o has rank k < r, so
// that there are many minimisers, and the sources do not say which is meant. Three readings:
// - `whitened`: H_o + ρ·mean(diag H)·I; the k outlier channels first, the other r − k ranks go to
//   plain singular directions.
// - `restricted`: ρ = 0, minimum norm; the best rank-min(r, k) approximation of W_O in the metric
//   H_OO, zero on the other columns.
// - `projection`: the same left space U, but R₀ = Uᵀ·W on all columns.
// `whitened` is the default: it alone showed the published pattern in our measurements (§5.2, §7).
//
// Ablations: `start` also offers zero (CALDERA's), svd (the plain truncated SVD of W) and lr_first (the best
// rank-r approximation in the metric of the whole H); `selection` chooses O by the diagonal, by the largest
// |x| or at random; `iterations` 0 stops after the first Q.
//
// What differs from the paper and why:
// - k defaults to max(1, min(16, r/4)): k = 16 at r = 256 is known, the rule for other ranks is
//   not.
// - Outliers are chosen by the undamped diagonal, in which a dead channel is 0 and takes no place.
// - H_OO of the restricted starts is damped by 1e-8 of its mean: equal outlier channels make it
//   singular.
// - Codebooks, rotation and factors as in caldera.cpp. Outliers are chosen, and L₀·R₀ made, before
//   the rotation, after which every channel looks alike. The first iterate that counts follows the
//   first LR step.
#include "core/methods/odlri.h"

#include "core/base/random.h"
#include "core/linalg/weighted_low_rank.h"
#include "core/methods/common_parameters.h"
#include "core/methods/joint_loop.h"

#include <algorithm>
#include <numeric>

namespace rankscope {
namespace {

constexpr double k_restricted_damping = 1e-8;

Index outlier_count(const Parameters& parameters, Index channels)
{
    const Index rank = parameters.integer("rank");
    const Index rule = std::max<Index>(1, std::min<Index>(16, rank / 4));
    const Index asked = parameters.integer("k");
    return std::min(asked == 0 ? rule : asked, channels);
}

/// The k channels of largest score, ties by index; rising.
std::vector<Index> largest(const VectorD& scores, Index k)
{
    std::vector<Index> channels(static_cast<std::size_t>(scores.size()));
    std::iota(channels.begin(), channels.end(), Index{0});
    std::stable_sort(channels.begin(), channels.end(),
                     [&](Index a, Index b) { return scores(a) > scores(b); });
    channels.resize(static_cast<std::size_t>(k));
    std::sort(channels.begin(), channels.end());
    return channels;
}

/// What channels are chosen by: the second moment, the largest |x|, or chance. Channels that were never
/// active come last in each.
VectorD selection_scores(const LayerProblem& problem, const std::string& selection)
{
    const Moments& moments = *problem.moments;
    const VectorD diagonal = moments.hessian.diagonal();
    if (selection == "max_abs" && moments.max_abs.size() == diagonal.size())
        return moments.max_abs;
    if (selection != "random")
        return diagonal;
    const RandomStream random(problem.seed, problem.name + " outliers");
    VectorD scores(diagonal.size());
    for (Index i = 0; i < scores.size(); ++i)
        scores(i) = diagonal(i) > 0.0 ? 1.0 + random.uniform(static_cast<std::uint64_t>(i)) : 0.0;
    return scores;
}

MatrixD block_of(const MatrixD& hessian, const std::vector<Index>& channels)
{
    const Index k = static_cast<Index>(channels.size());
    MatrixD block(k, k);
    for (Index i = 0; i < k; ++i)
        for (Index j = 0; j < k; ++j)
            block(i, j) =
                hessian(channels[static_cast<std::size_t>(i)], channels[static_cast<std::size_t>(j)]);
    return block;
}

/// What the start is made from: W with dead columns zero, and H with dead channels at 1, not damped.
struct OutlierProblem {
    Buffer weight;
    const MatrixD& hessian;
    const std::vector<Index>& outliers;
    const JointOptions& options;
    RandomStream random;
    Backend& backend;
    const Monitor& monitor;
};

/// The best rank-r approximation of W in the metric of `hessian`.
JointStart best_start(const OutlierProblem& problem, const MatrixD& hessian)
{
    Backend& backend = problem.backend;
    LowRankSolver solver(backend.upload(hessian), problem.weight.rows(), problem.options.rank,
                         problem.options.solver, problem.random, backend);
    const Buffer weight = backend.convert(problem.weight, solver.precision());
    const double whole = backend.dot(backend.multiply(weight, solver.hessian()), weight);
    const LowRankBuffers factors = solver.solve(weight, whole, problem.monitor);
    return {factors.left, factors.right};
}

/// In the metric of the damped H: what LR first begins with.
JointStart low_rank_first_start(const OutlierProblem& problem)
{
    MatrixD damped = problem.hessian;
    damped.diagonal().array() += problem.options.damp * problem.hessian.diagonal().mean();
    return best_start(problem, damped);
}

JointStart whitened_start(const OutlierProblem& problem, double rho)
{
    const Index n = problem.hessian.rows();
    MatrixD selected = MatrixD::Zero(n, n);
    for (const Index i : problem.outliers)
        for (const Index j : problem.outliers)
            selected(i, j) = problem.hessian(i, j);
    selected.diagonal().array() += rho * problem.hessian.diagonal().mean();
    return best_start(problem, selected);
}

JointStart restricted_start(const OutlierProblem& problem, bool all_columns)
{
    Backend& backend = problem.backend;
    const Index k = static_cast<Index>(problem.outliers.size());
    const Index rank = std::min(problem.options.rank, k);
    MatrixD block = block_of(problem.hessian, problem.outliers);
    block.diagonal().array() += k_restricted_damping * block.diagonal().mean();
    const Buffer columns = backend.gather_columns(problem.weight, problem.outliers);
    const Buffer left = weighted_low_rank(columns, backend.upload(block), rank, backend).left;
    if (all_columns)
        return {left, backend.multiply(left, Transpose::Yes, problem.weight, Transpose::No)};
    const Matrix narrow = backend.download(backend.multiply(left, Transpose::Yes, columns, Transpose::No));
    Matrix right = Matrix::Zero(narrow.rows(), problem.weight.cols());
    for (Index i = 0; i < k; ++i)
        right.col(problem.outliers[static_cast<std::size_t>(i)]) = narrow.col(i);
    return {left, backend.upload(right)};
}

JointStart start_of(const std::string& kind, const OutlierProblem& problem, double rho)
{
    if (kind == "zero" || problem.options.rank == 0)
        return {};
    if (kind == "svd")
        return best_start(problem, MatrixD::Identity(problem.hessian.rows(), problem.hessian.cols()));
    if (kind == "lr_first")
        return low_rank_first_start(problem);
    if (kind == "whitened")
        return whitened_start(problem, rho);
    return restricted_start(problem, kind == "projection");
}

class Odlri final : public Method {
public:
    const MethodInfo& info() const override;
    Result<Decomposition> decompose(const LayerProblem& problem, const Parameters& parameters,
                                    Backend& backend, Monitor& monitor) const override;
};

const MethodInfo& Odlri::info() const
{
    static const MethodInfo info{
        "odlri",
        "ODLRI",
        "Starts CALDERA with an L·R that carries the weights of the outlier channels, so that Q has less to "
        "hold.",
        "Cho et al. 2025, arXiv 2506.02077",
        {.hessian = true},
        true,
        joint_parameters()
            + std::vector{ParameterInfo{"k",
                                        "Outlier channels",
                                        ParameterType::Integer,
                                        std::int64_t{0},
                                        0,
                                        1 << 20,
                                        {},
                                        "channels",
                                        "Channels with the largest activations that L·R carries at the "
                                        "start; 0: a quarter of the rank, "
                                        "1 to 16."},
                          choice_parameter(
                              "selection", "Selection", {"diag_h", "max_abs", "random"},
                              "By what the outlier channels are chosen: their second moment, their "
                              "largest magnitude, or chance (for comparison)."),
                          choice_parameter(
                              "start", "Start",
                              {"whitened", "restricted", "projection", "zero", "svd", "lr_first"},
                              "What L·R holds beside the outlier channels: plain directions, "
                              "nothing, or their projection. For comparison: no start at all, the "
                              "plain SVD of the weight, or its best approximation in the metric of "
                              "all channels."),
                          ParameterInfo{"rho",
                                        "Whitening",
                                        ParameterType::Real,
                                        0.01,
                                        0.0,
                                        1.0,
                                        {},
                                        "",
                                        "Weight of the other channels in the whitened start, as a share of "
                                        "the mean second moment."}},
        check_codebook,
    };
    return info;
}

Result<Decomposition> Odlri::decompose(const LayerProblem& problem, const Parameters& parameters,
                                       Backend& backend, Monitor& monitor) const
{
    if (auto checked = check_problem(problem, info(), parameters, backend); !checked)
        return checked.error();
    const JointOptions options = joint_options(parameters);
    const std::vector<Index> outliers = largest(selection_scores(problem, parameters.text("selection")),
                                                outlier_count(parameters, problem.weight.cols()));
    DampedLayer layer = damped_layer(problem, 0.0, backend, monitor);
    const JointStart start = start_of(parameters.text("start"),
                                      {layer.weight, layer.hessian, outliers, options,
                                       RandomStream(problem.seed, problem.name + " start"), backend, monitor},
                                      parameters.real("rho"));
    layer.hessian.diagonal().array() += parameters.real("damp") * layer.hessian.diagonal().mean();
    auto result = alternate(problem, layer, options, start, backend, monitor);
    if (!result)
        return result;
    const std::string& kind = parameters.text("start");
    if (kind == "whitened" || kind == "restricted" || kind == "projection")
        result->outlier_channels = outliers;
    if (problem.keep_iterates && !start.left.empty())
        result->start_low_rank = backend.download(backend.multiply(start.left, start.right));
    return result;
}

} // namespace

const Method& odlri_method()
{
    static const Odlri method;
    return method;
}

} // namespace rankscope
