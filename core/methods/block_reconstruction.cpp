// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/methods/block_reconstruction.h"

#include "core/base/random.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace rankscope {
namespace {

/// Sequences in an order that is shuffled anew for each round through them.
class Batches {
public:
    Batches(Index sequences, Index batch, std::uint64_t seed)
        : order_(static_cast<std::size_t>(sequences)), batch_(std::min(batch, sequences)), seed_(seed)
    {}

    std::vector<Index> of_step(Index step)
    {
        std::vector<Index> chosen;
        for (Index i = step * batch_; i < (step + 1) * batch_; ++i) {
            const Index count = static_cast<Index>(order_.size());
            if (i / count != round_)
                shuffle(i / count);
            chosen.push_back(order_[static_cast<std::size_t>(i % count)]);
        }
        return chosen;
    }

private:
    void shuffle(Index round)
    {
        round_ = round;
        std::iota(order_.begin(), order_.end(), Index{0});
        const RandomStream random(seed_, "round " + std::to_string(round));
        for (std::size_t i = order_.size(); i > 1; --i)
            std::swap(order_[i - 1], order_[random.below(i, i)]);
    }

    std::vector<Index> order_;
    Index batch_;
    std::uint64_t seed_;
    Index round_ = -1;
};

class BlockTraining {
public:
    BlockTraining(const BlockProblem& problem, const ReconstructionOptions& options, Backend& backend,
                  Monitor& monitor)
        : problem_(problem), options_(options), backend_(backend), monitor_(monitor),
          batches_(problem.streams.sequences() - problem.streams.held_out, options.batch, options.seed)
    {}

    double descend(Index step)
    {
        update_weights();
        const std::vector<Index> chosen = batches_.of_step(step);
        BlockTape tape;
        const Buffer error = error_of(chosen, &tape);
        const double scale = normalization(static_cast<Index>(chosen.size()));
        const double loss = backend_.dot(error, error) / scale;
        Buffer slope = backend_.allocate(error.rows(), error.cols());
        backend_.add_scaled(2.0 / scale, error, 0.0, slope);
        const BlockGradient gradient =
            problem_.block->backward(std::move(slope), weights_, tape, backend_, InputGradient::No);
        for (const auto& [role, linear] : problem_.learned)
            linear->backward(gradient.weights.at(role), backend_);
        return loss;
    }

    LossPoint measure()
    {
        update_weights();
        const Index trained = problem_.streams.sequences() - problem_.streams.held_out;
        LossPoint point;
        point.training = loss_of(0, trained);
        if (problem_.streams.held_out > 0)
            point.held_out = loss_of(trained, problem_.streams.held_out);
        return point;
    }

private:
    void update_weights()
    {
        weights_ = problem_.fixed;
        for (const auto& [role, linear] : problem_.learned)
            weights_[role] = linear->forward(backend_);
    }

    double normalization(Index sequences) const
    {
        return static_cast<double>(sequences * problem_.streams.inputs->width());
    }

    Matrix stacked(HiddenStates& states, const std::vector<Index>& sequences) const
    {
        const Index length = problem_.streams.length;
        Matrix rows(static_cast<Index>(sequences.size()) * length, states.width());
        for (std::size_t i = 0; i < sequences.size(); ++i) {
            rows.middleRows(static_cast<Index>(i) * length, length) =
                states.rows(sequences[i] * length, length);
            states.release(sequences[i] * length, length);
        }
        return rows;
    }

    /// block(x̃) − y of these sequences.
    Buffer error_of(const std::vector<Index>& sequences, BlockTape* tape)
    {
        const Buffer x = backend_.upload(stacked(*problem_.streams.inputs, sequences));
        Buffer y = problem_.block->forward(x, problem_.streams.length, weights_, problem_.quantizers, tape,
                                           backend_);
        backend_.add_scaled(-1.0, backend_.upload(stacked(*problem_.streams.targets, sequences)), 1.0, y);
        return y;
    }

    double loss_of(Index first, Index count)
    {
        double sum = 0.0;
        const Index step = std::max(options_.batch, windows_per_batch(problem_.streams.length));
        for (Index begin = first; begin < first + count; begin += step) {
            monitor_.throw_if_cancelled();
            std::vector<Index> sequences(static_cast<std::size_t>(std::min(step, first + count - begin)));
            std::iota(sequences.begin(), sequences.end(), begin);
            const Buffer error = error_of(sequences, nullptr);
            sum += backend_.dot(error, error);
        }
        return sum / normalization(count);
    }

    const BlockProblem& problem_;
    const ReconstructionOptions& options_;
    Backend& backend_;
    Monitor& monitor_;
    Batches batches_;
    BlockWeights weights_;
};

/// Floating-point operations a second of a product of the block's kind.
double measured_rate(Index rows, Index inner, Backend& backend)
{
    using Clock = std::chrono::steady_clock;
    const Buffer a = backend.allocate(rows, inner);
    const Buffer b = backend.allocate(inner, inner);
    const auto once = [&] {
        const auto start = Clock::now();
        const Buffer product = backend.multiply(a, b);
        static_cast<void>(backend.dot(product, product)); // devices finish before this returns
        return std::chrono::duration<double>(Clock::now() - start).count();
    };
    const double seconds = std::min(once(), once());
    return 2.0 * static_cast<double>(rows) * static_cast<double>(inner) * static_cast<double>(inner)
           / std::max(seconds, 1e-9);
}

} // namespace

Index held_out_sequences(Index total) { return total / 8; }

std::function<Buffer(LinearRole, const Buffer&)> per_token_quantizer(int bits, Backend& backend)
{
    UniformGrid grid;
    grid.bits = bits;
    grid.group = 0;
    return [grid, &backend](LinearRole, const Buffer& x) {
        return backend.round_nearest(x, backend.fit_grid(x, grid)).values;
    };
}

std::function<Buffer(LinearRole, const Buffer&)> static_quantizer(int bits, const ActivationRanges& ranges,
                                                                  Backend& backend)
{
    UniformGrid grid;
    grid.bits = bits;
    grid.group = 0;
    const double steps = std::ldexp(1.0, bits) - 1.0;
    return [=, &backend](LinearRole role, const Buffer& x) {
        const auto found = ranges.find(role);
        if (found == ranges.end())
            return x;
        const double low = std::min(found->second.first, 0.0);
        const double high = std::max(found->second.second, 0.0);
        const double scale = std::max((high - low) / steps, 1e-8);
        const double zero = std::clamp(-std::nearbyint(low / scale), 0.0, steps);
        const Matrix scales = Matrix::Constant(x.rows(), 1, static_cast<float>(scale));
        const Matrix zeros = Matrix::Constant(x.rows(), 1, static_cast<float>(zero));
        return backend.round_nearest(x, {grid, backend.upload(scales), backend.upload(zeros)}).values;
    };
}

void advance_states(const DifferentiableBlock& block, const BlockWeights& weights,
                    const BlockQuantizers& quantizers, HiddenStates& states, Index length, Index sequences,
                    Backend& backend, Monitor& monitor)
{
    const Index step = windows_per_batch(length);
    for (Index first = 0; first < sequences; first += step) {
        monitor.throw_if_cancelled();
        const Index tokens = std::min(step, sequences - first) * length;
        auto rows = states.rows(first * length, tokens);
        rows = backend.download(
            block.forward(backend.upload(rows), length, weights, quantizers, nullptr, backend));
        states.release(first * length, tokens);
    }
}

ActivationRanges activation_ranges(const DifferentiableBlock& block, const BlockWeights& weights,
                                   int key_value_bits, HiddenStates& states, Index length, Index sequences,
                                   Backend& backend, Monitor& monitor)
{
    ActivationRanges ranges;
    BlockQuantizers watching;
    watching.keys_values = per_token_quantizer(key_value_bits, backend);
    watching.input = [&ranges, &backend](LinearRole role, const Buffer& x) {
        const Matrix values = backend.download(x);
        auto& [low, high] = ranges[role];
        low = std::min(low, static_cast<double>(values.minCoeff()));
        high = std::max(high, static_cast<double>(values.maxCoeff()));
        return x;
    };
    const Index step = windows_per_batch(length);
    for (Index first = 0; first < sequences; first += step) {
        monitor.throw_if_cancelled();
        const Buffer x =
            backend.upload(states.rows(first * length, std::min(step, sequences - first) * length));
        static_cast<void>(block.forward(x, length, weights, watching, nullptr, backend));
    }
    return ranges;
}

double descend_block(const BlockProblem& problem, const ReconstructionOptions& options, Backend& backend)
{
    return BlockTraining(problem, options, backend, silent_monitor()).descend(0);
}

ReconstructionReport reconstruct_block(const BlockProblem& problem, const ReconstructionOptions& options,
                                       Backend& backend, Monitor& monitor)
{
    BlockTraining training(problem, options, backend, monitor);
    std::vector<LearnedLinear*> linears;
    for (const auto& [role, linear] : problem.learned)
        linears.push_back(linear);
    const TrainingLoss loss{[&](Index step) { return training.descend(step); },
                            [&] { return training.measure(); }};
    return train(linears, loss, options, backend, monitor);
}

ReconstructionEstimate estimate_reconstruction(const ReconstructionSize& size,
                                               const ReconstructionOptions& options, Backend& backend)
{
    const double tokens = static_cast<double>(options.batch * size.length);
    const double weights = static_cast<double>(size.weights);
    // A product with every weight forwards and two backwards; scores and values, recomputed on the way back.
    const double attention =
        static_cast<double>(size.attention) * tokens * static_cast<double>(size.length) * 0.5 * 2.0;
    const double forward = 2.0 * weights * tokens + 2.0 * attention;
    // Of LRQ, L₂·U₂ and its two gradients; a hundred operations a weight for exponents, rounding and Adam.
    const double rank_products =
        static_cast<double>(size.factor_numbers) > 0.0
            ? 6.0 * static_cast<double>(size.factor_numbers) * static_cast<double>(size.hidden)
            : 0.0;
    const double step = 3.0 * forward + 2.0 * attention + rank_products + 100.0 * weights;
    const double whole = static_cast<double>(size.sequences) / static_cast<double>(options.batch) * forward;
    ReconstructionEstimate estimate;
    estimate.operations =
        static_cast<double>(options.steps) * step + static_cast<double>(options.checks + 1) * whole;
    estimate.seconds =
        estimate.operations
        / measured_rate(std::min<Index>(options.batch * size.length, 1024), size.hidden, backend);
    const double activations =
        tokens * static_cast<double>(8 * size.hidden + 8 * size.attention + 6 * size.widest);
    estimate.bytes =
        size.learned_bytes + static_cast<std::uint64_t>(sizeof(float) * (weights + activations))
        + 2 * sizeof(float) * static_cast<std::uint64_t>(size.sequences * size.length * size.hidden);
    return estimate;
}

} // namespace rankscope
