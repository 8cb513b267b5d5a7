// SPDX-License-Identifier: GPL-3.0-or-later
// The forward pass with rounded activations goes through the same block that LRQ and FlexRound learn in, so
// that what is measured is what was simulated while learning.
#include "core/evaluate/simulated_pass.h"

#include "core/calibration/streaming_pass.h"

#include <fmt/format.h>

#include <optional>

namespace rankscope {
namespace {

/// A text on its way through the blocks.
struct Stream {
    TokenWindows windows;
    HiddenStates states;
};

class SimulatedPass {
public:
    SimulatedPass(const Model& model, const WeightSource& weights, const ActivationSimulation& simulation,
                  std::uint64_t budget, Backend& backend, Monitor& monitor)
        : model_(model), weights_(weights), simulation_(simulation), budget_(budget), backend_(backend),
          monitor_(monitor)
    {}

    Result<HiddenStates> run(const TokenWindows& windows)
    {
        if (auto read = read_ranges_text(windows.length); !read)
            return read.error();
        auto stream = start(windows);
        if (!stream)
            return stream.error();
        const auto blocks = static_cast<std::uint64_t>(model_.config().blocks);
        for (int number = 0; number < static_cast<int>(blocks); ++number) {
            monitor_.throw_if_cancelled();
            monitor_.report(static_cast<std::uint64_t>(number), blocks,
                            fmt::format("block {} of {}", number + 1, blocks));
            if (auto done = pass_block(number, *stream); !done)
                return done.error();
        }
        return std::move(stream->states);
    }

private:
    /// Only where a block's ranges are not known yet.
    Status read_ranges_text(Index length)
    {
        if (!simulation_.static_ranges
            || simulation_.kept.size() == static_cast<std::size_t>(model_.config().blocks))
            return {};
        if (simulation_.ranges_text.empty())
            return usage_error(
                "static ranges are measured on a text, and none was given", "--simulate",
                "Give the calibration's text with --ranges-text, or round each token by itself (a8kv8)");
        auto text = tokenize_file(model_, simulation_.ranges_text);
        if (!text)
            return text.error();
        auto windows = prefixed_windows(*text, length, length - static_cast<Index>(text->prefix.size()),
                                        simulation_.ranges_samples);
        if (!windows)
            return windows.error();
        auto stream = start(*windows);
        if (!stream)
            return stream.error();
        ranges_ = std::move(*stream);
        return {};
    }

    Result<Stream> start(const TokenWindows& windows)
    {
        const PassMemory memory = pass_memory(model_, windows.count(), windows.length);
        const std::uint64_t other =
            ranges_ ? pass_memory(model_, ranges_->windows.count(), windows.length).hidden : 0;
        std::error_code ignored;
        auto states = make_hidden_states(static_cast<Index>(windows.tokens.size()), model_.config().hidden,
                                         memory.block_weights + 2 * memory.activations + other, budget_,
                                         std::filesystem::temp_directory_path(ignored));
        if (!states)
            return states.error();
        Stream stream{windows, std::move(*states)};
        StreamingPass pass(model_, stream.windows, backend_, monitor_);
        if (auto embedded = pass.embed(stream.states); !embedded)
            return embedded.error();
        return stream;
    }

    /// Dense: what the block is computed with.
    Result<BlockWeights> load(int number) const
    {
        BlockWeights result;
        for (const BlockPart& part : block_parts(model_, number)) {
            auto linear = weights_.linear(*part.layer, backend_);
            if (!linear)
                return linear.error();
            if (linear->activations.active())
                return usage_error("this layer rounds its own input, which would be rounded twice",
                                   part.layer->name,
                                   "Leave --simulate out: evaluate does what the run's methods say");
            if (!linear->left.empty()) {
                linear->weight = backend_.copy(linear->weight);
                backend_.gemm(1.0, linear->left, Transpose::No, linear->right, Transpose::No, 1.0,
                              linear->weight);
            }
            result[part.role] =
                part.rows.empty() ? linear->weight : backend_.gather_rows(linear->weight, part.rows);
        }
        return result;
    }

    Status pass_block(int number, Stream& stream)
    {
        auto block = DifferentiableBlock::load(model_, number, backend_);
        if (!block)
            return block.error();
        auto weights = load(number);
        if (!weights)
            return weights.error();
        BlockQuantizers rounding;
        rounding.keys_values = per_token_quantizer(simulation_.bits, backend_);
        rounding.input = rounding.keys_values;
        if (simulation_.static_ranges)
            rounding.input =
                static_quantizer(simulation_.bits, ranges_of(number, *block, *weights), backend_);
        for (Stream* each : {ranges_ ? &*ranges_ : nullptr, &stream})
            if (each)
                advance_states(*block, *weights, rounding, each->states, each->windows.length,
                               each->windows.count(), backend_, monitor_);
        return {};
    }

    ActivationRanges ranges_of(int number, const DifferentiableBlock& block, const BlockWeights& weights)
    {
        if (const auto kept = simulation_.kept.find(number); kept != simulation_.kept.end())
            return kept->second;
        return activation_ranges(block, weights, simulation_.bits, ranges_->states, ranges_->windows.length,
                                 ranges_->windows.count(), backend_, monitor_);
    }

    const Model& model_;
    const WeightSource& weights_;
    const ActivationSimulation& simulation_;
    std::uint64_t budget_;
    Backend& backend_;
    Monitor& monitor_;
    std::optional<Stream> ranges_;
};

} // namespace

Result<HiddenStates> simulated_states(const Model& model, const WeightSource& weights,
                                      const TokenWindows& windows, const ActivationSimulation& simulation,
                                      std::uint64_t memory_budget_bytes, Backend& backend, Monitor& monitor)
{
    return SimulatedPass(model, weights, simulation, memory_budget_bytes, backend, monitor).run(windows);
}

} // namespace rankscope
