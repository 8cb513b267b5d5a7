// SPDX-License-Identifier: GPL-3.0-or-later
//
// Compressing block after block (GPTQ, arXiv 2210.17323, §3; with both streams as in GPTAQ, arXiv 2504.02692,
// and the layer-wise loss of methods-learned §1.4). A layer that is fed x̃ instead of x should still give W·X:
//   ‖W·X − Ŵ·X̃‖² = ‖(W* − Ŵ)·X̃‖² + rest,   W* = W·X·X̃ᵀ·(X̃·X̃ᵀ)⁻¹,
// so every method serves as it is, with W* for its weight and X̃·X̃ᵀ for its moments.
#include "core/run/detail/propagation.h"

#include "core/base/byte_size.h"
#include "core/calibration/activation_statistics.h"
#include "core/calibration/quantized_activations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rankscope {
namespace {

/// Of mean(diag X̃·X̃ᵀ): directions that few tokens show must not move the target.
constexpr double k_shift_damping = 0.01;
/// How far the target goes from W to W*. All the way fits the noise of the calibration text too
/// (docs/performance.md has the figures; GPTAQ's release takes a quarter).
constexpr double k_shift_share = 0.5;

/// Σ (A·M)·Bᵀ over the diagonal.
double inner(const Matrix& a, const MatrixD& m, const Matrix& b)
{
    const MatrixD product = a.cast<double>() * m;
    return product.cwiseProduct(b.cast<double>()).sum();
}

/// What one group's input adds up to in both streams.
struct GroupSums {
    CovarianceSums sums; // x, and x̃ as the second
    std::unique_ptr<ColumnAccumulator> seen;

    GroupSums(Index width, Backend& backend)
        : sums(width, true, backend), seen(backend.column_accumulator({width, {}, false}))
    {}
};

Result<Matrix> shift_of(const MatrixD& seen, const MatrixD& drift, Backend& backend)
{
    const Index width = seen.rows();
    const double damping = k_shift_damping * seen.trace() / static_cast<double>(width);
    if (drift.isZero(0.0) || !(damping > 0.0))
        return Matrix(Matrix::Zero(width, width));
    MatrixD damped = seen;
    damped.diagonal().array() += damping;
    auto factor = backend.cholesky(backend.upload(damped));
    if (!factor)
        return factor.error();
    Buffer solution = backend.upload(MatrixD(drift.transpose()));
    backend.solve_lower(*factor, Transpose::No, solution);
    backend.solve_lower(*factor, Transpose::Yes, solution);
    return Matrix((k_shift_share * backend.download_double(solution).transpose()).cast<float>());
}

Result<PropagatedMoments> moments_of(const std::string& group, GroupSums& sums, Backend& backend)
{
    const ColumnTotals totals = sums.seen->totals();
    ColumnStatistics all = totals.apart;
    all.merge(totals.others);
    if (all.rows == 0)
        return bad_input("no token of the text reaches this input in both streams", group,
                         "Give more or other text, or leave the layer out of the plan");
    PropagatedMoments result;
    const auto tokens = static_cast<double>(all.rows);
    MatrixD both = backend.download_double(sums.sums.xy()) / tokens;
    result.seen.tokens = all.rows;
    result.seen.hessian = backend.download_double(sums.sums.yy()) / tokens;
    const ActivationStatistics statistics(all, {});
    result.seen.mean_abs = statistics.mean_abs();
    result.seen.max_abs = statistics.max_abs();
    result.gap = backend.download_double(sums.sums.xx()) / tokens + result.seen.hessian;
    result.gap -= both + both.transpose();
    result.drift = both - result.seen.hessian;
    auto shift = shift_of(result.seen.hessian, result.drift, backend);
    if (!shift)
        return shift.error().in(group);
    result.shift = std::move(*shift);
    return result;
}

} // namespace

Matrix PropagatedMoments::target(const Matrix& weight) const
{
    return shift.isZero(0.0F) ? weight : Matrix(weight + weight * shift);
}

double PropagatedMoments::relative_error(const Matrix& weight, const Matrix& compressed) const
{
    const Matrix error = weight - compressed;
    const double own = inner(error, seen.hessian, error);
    const double brought = inner(weight, gap, weight);
    const double both = inner(weight, drift, error);
    const double whole = brought + 2.0 * inner(weight, drift, weight) + inner(weight, seen.hessian, weight);
    return whole > 0.0 ? std::sqrt(std::max(0.0, own + brought + 2.0 * both) / whole) : 0.0;
}

Result<std::unique_ptr<Propagation>> Propagation::prepare(std::shared_ptr<const Model> model,
                                                          const RunOptions& options, Backend& backend,
                                                          Monitor& monitor)
{
    if (options.text.empty())
        return usage_error("--propagate sends text through the blocks, and none was given", "--text",
                           "Give the text that the calibration was made of");
    auto text = tokenize_file(*model, options.text);
    if (!text)
        return text.error();
    auto length = window_length(*model, options.length);
    if (!length)
        return length.error();
    auto windows =
        prefixed_windows(*text, *length, *length - static_cast<Index>(text->prefix.size()), options.samples);
    if (!windows)
        return windows.error();
    std::unique_ptr<Propagation> result(new Propagation(std::move(model), backend, monitor));
    result->windows_ = std::move(*windows);
    result->memory_budget_bytes_ = options.memory_budget_bytes;
    result->id_ = fmt::format("{} windows of {} tokens of the text {}", result->windows_.count(),
                              result->windows_.length, text->hash);
    const auto fit = hidden_states_fit(0, result->fixed_bytes(), options.memory_budget_bytes);
    if (!fit)
        return fit.error();
    return result;
}

/// One block in both forms, a batch of both streams, and the moments of the block with most of them.
std::uint64_t Propagation::fixed_bytes() const
{
    constexpr std::uint64_t k_sums = 3; // on the backend
    constexpr std::uint64_t k_results =
        4; // three matrices in float64, the shift in half of that, one to spare
    const PassMemory memory = pass_memory(*model_, windows_.count(), windows_.length);
    std::map<int, std::map<std::string, std::uint64_t>> blocks;
    for (const LinearLayer& layer : model_->linears())
        blocks[layer.block][layer.input_group] =
            static_cast<std::uint64_t>(layer.in) * static_cast<std::uint64_t>(layer.in) * sizeof(double);
    std::uint64_t most = 0;
    for (const auto& [block, groups] : blocks) {
        std::uint64_t bytes = 0;
        for (const auto& [group, square] : groups)
            bytes += (k_sums + k_results) * square;
        most = std::max(most, bytes);
    }
    return resident_bytes() + 2 * (memory.block_weights + memory.activations) + most;
}

Status Propagation::start(const std::filesystem::path& folder)
{
    const Index tokens = windows_.count() * windows_.length;
    const Index width = model_->config().hidden;
    const auto in_memory =
        hidden_states_fit(2 * pass_memory(*model_, windows_.count(), windows_.length).hidden, fixed_bytes(),
                          memory_budget_bytes_);
    if (!in_memory)
        return in_memory.error();
    pass_ = std::make_unique<StreamingPass>(*model_, windows_, backend_, monitor_);
    for (auto* states : {&first_, &second_}) {
        auto made = *in_memory ? HiddenStates::in_memory(tokens, width)
                               : HiddenStates::in_scratch_file(tokens, width, folder);
        if (!made)
            return made.error();
        *states = std::make_unique<HiddenStates>(std::move(*made));
        if (auto embedded = pass_->embed(**states); !embedded)
            return embedded;
    }
    return {};
}

Status Propagation::collect(int block, const std::set<std::string>& groups)
{
    moments_.clear();
    std::map<std::string, GroupSums> sums;
    for (const LinearLayer& layer : model_->linears()) {
        if (layer.block == block && groups.contains(layer.input_group))
            sums.try_emplace(layer.input_group, layer.in, backend_);
    }
    const PairObserver observer = [&](int, Index first_window, const std::string& group, const Buffer& x,
                                      const Buffer& other) -> Status {
        const auto found = sums.find(group);
        if (found == sums.end())
            return {};
        found->second.sums.add(x, other, backend_);
        found->second.seen->add(other, {});
        if (found->second.seen->first_not_finite() >= 0)
            return bad_input(fmt::format("an activation of the compressed model is not finite in the windows "
                                         "from {} on",
                                         first_window),
                             group, "Give the blocks before it more bits, or leave them out of the plan");
        return {};
    };
    if (auto seen =
            pass_->run_block_pair(block, {*original_, *first_}, {*original_, *second_}, observer, false);
        !seen)
        return seen;
    for (auto& [group, sum] : sums) {
        monitor_.throw_if_cancelled();
        auto moments = moments_of(group, sum, backend_);
        if (!moments)
            return moments.error();
        moments_.emplace(group, std::move(*moments));
    }
    return {};
}

Status Propagation::advance(int block, const WeightSource& compressed)
{
    moments_.clear();
    return pass_->run_block_pair(block, {*original_, *first_}, {compressed, *second_}, {}, true);
}

} // namespace rankscope
