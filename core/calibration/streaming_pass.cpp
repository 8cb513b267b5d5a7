// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/calibration/streaming_pass.h"

#include "core/base/byte_size.h"
#include "core/base/thread_pool.h"
#include "core/calibration/detail/tensor_hashes.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace rankscope {
namespace {

/// Enough rows for full speed of the products, few enough that a batch of a small model stays in the cache.
constexpr Index k_batch_tokens = 1024;

std::uint64_t float_bytes(Index rows, Index cols)
{
    return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols) * sizeof(float);
}

/// What a block's tensors have brought into memory is no longer needed once they are decoded.
void release_pages(const Model& model, const std::vector<std::string>& tensors)
{
    for (const std::string& name : tensors)
        model.checkpoint().release(name);
}

} // namespace

PassMemory pass_memory(const Model& model, Index windows, Index length)
{
    const ModelConfig& config = model.config();
    std::map<int, std::uint64_t> blocks;
    std::uint64_t largest = 0;
    for (const LinearLayer& layer : model.linears()) {
        const TensorInfo* stored = model.checkpoint().find(layer.weight());
        blocks[layer.block] += float_bytes(layer.out, layer.in) + (stored ? stored->bytes : 0);
        largest = std::max(largest, float_bytes(layer.out, layer.in));
    }
    PassMemory memory;
    for (const auto& [block, bytes] : blocks)
        memory.block_weights = std::max(memory.block_weights, bytes);
    memory.block_weights += largest;
    const Index tokens = std::min(windows, windows_per_batch(length)) * length;
    const Index attention = config.heads * config.head_dim;
    // Hidden state, its norm, q, k, v, attention's result, two of the MLP's width and one on its way to the
    // host.
    memory.activations = float_bytes(tokens, 4 * config.hidden + 4 * attention + 3 * config.intermediate)
                         + float_bytes(length, length) * static_cast<std::uint64_t>(thread_count());
    memory.hidden = float_bytes(windows * length, config.hidden);
    return memory;
}

Result<bool> hidden_states_fit(std::uint64_t hidden_bytes, std::uint64_t fixed_bytes,
                               std::uint64_t budget_bytes)
{
    if (budget_bytes == 0)
        return true;
    if (fixed_bytes > budget_bytes)
        return Error{ErrorKind::NoSpace,
                     "this needs at least " + format_byte_size(fixed_bytes)
                         + " of memory for one block and one batch, and the budget is "
                         + format_byte_size(budget_bytes),
                     {},
                     "Raise --memory or choose a smaller --length"};
    return hidden_bytes <= budget_bytes - fixed_bytes;
}

Result<HiddenStates> make_hidden_states(Index tokens, Index width, std::uint64_t fixed_bytes,
                                        std::uint64_t budget_bytes, const std::filesystem::path& folder)
{
    const auto fit = hidden_states_fit(float_bytes(tokens, width), fixed_bytes, budget_bytes);
    if (!fit)
        return fit.error();
    return *fit ? HiddenStates::in_memory(tokens, width)
                : HiddenStates::in_scratch_file(tokens, width, folder);
}

Index windows_per_batch(Index length)
{
    return std::max<Index>(1, k_batch_tokens / std::max<Index>(1, length));
}

void StreamingPass::expect_blocks(int first, int last)
{
    const Index batches = (windows_.count() + step_ - 1) / step_;
    const Index stages = last - first + (first == 0 ? 1 : 0); // the embedding is one of its own
    total_ = batches * stages;
    done_ = 0;
}

std::string StreamingPass::name_of(int block) const
{
    return "block " + std::to_string(block + 1) + " of " + std::to_string(model_.config().blocks);
}

template <class Body>
Status StreamingPass::each_batch(const std::string& what, const Body& body)
{
    for (Index first = 0; first < windows_.count(); first += step_) {
        monitor_.throw_if_cancelled();
        monitor_.report(static_cast<std::uint64_t>(done_++), static_cast<std::uint64_t>(total_), what);
        if (auto status = body(first, std::min(step_, windows_.count() - first)); !status)
            return status;
    }
    return {};
}

Status StreamingPass::embed(HiddenStates& states)
{
    auto done = each_batch("embedding", [&](Index first, Index count) -> Status {
        auto embedded = rankscope::embed(model_, windows_.range(first, count), windows_.length, backend_);
        if (!embedded)
            return embedded.error();
        states.set_batch(first_token(first), *embedded, backend_);
        return {};
    });
    release_pages(model_, embedding_tensors(model_));
    return done ? states.finish_block() : done;
}

Result<TransformerBlock> StreamingPass::load(int block, const WeightSource& weights)
{
    auto loaded = TransformerBlock::load(model_, weights, block, backend_);
    release_pages(model_, block_tensors(model_, block));
    return loaded;
}

Status StreamingPass::run_block(int block, const PassStream& stream, const PassEvents& events)
{
    if (events.block_begins) {
        if (auto status = events.block_begins(block); !status)
            return status;
    }
    auto loaded = load(block, stream.weights);
    if (!loaded)
        return loaded.error();
    auto done = each_batch(name_of(block), [&](Index first, Index count) -> Status {
        Status seen;
        const InputObserver observer = [&](const std::string& group, const Buffer& x,
                                           std::span<const Index> rows) {
            monitor_.throw_if_cancelled();
            if (events.input && seen)
                seen = events.input(block, first, group, x, rows);
        };
        Buffer hidden = stream.states.batch(first_token(first), first_token(count), backend_);
        loaded->forward(hidden, windows_.length, backend_, observer);
        if (seen && events.output)
            seen = events.output(block, first, hidden);
        stream.states.set_batch(first_token(first), hidden, backend_);
        return seen;
    });
    if (done && events.block_ends)
        done = events.block_ends(block);
    if (done)
        done = stream.states.finish_block();
    return done && events.block_finished ? events.block_finished(block) : done;
}

namespace {

/// Inputs of one batch, kept until the other stream has them too.
struct SeenInput {
    Buffer x;
    std::vector<Index> rows;
};

/// The rows of a and b that belong to the same tokens.
std::pair<Buffer, Buffer> common_tokens(const SeenInput& a, const Buffer& b, std::span<const Index> rows,
                                        Backend& backend)
{
    if (rows.empty() && a.rows.empty())
        return {a.x, b};
    std::vector<Index> from_a;
    std::vector<Index> from_b;
    for (std::size_t i = 0, j = 0; i < a.rows.size() && j < rows.size();) {
        if (a.rows[i] == rows[j]) {
            from_a.push_back(static_cast<Index>(i++));
            from_b.push_back(static_cast<Index>(j++));
        } else if (a.rows[i] < rows[j]) {
            ++i;
        } else {
            ++j;
        }
    }
    if (from_a.empty())
        return {};
    return {backend.gather_rows(a.x, from_a), backend.gather_rows(b, from_b)};
}

} // namespace

Status StreamingPass::run_block_pair(int block, const PassStream& first_stream,
                                     const PassStream& second_stream, const PairObserver& observer,
                                     bool advance)
{
    auto first_block = load(block, first_stream.weights);
    if (!first_block)
        return first_block.error();
    auto second_block = load(block, second_stream.weights);
    if (!second_block)
        return second_block.error();
    auto done = each_batch(name_of(block), [&](Index first, Index count) -> Status {
        const Index token = first_token(first);
        const Index tokens = first_token(count);
        std::map<std::string, SeenInput> inputs;
        Buffer hidden = backend_.upload(first_stream.states.rows(token, tokens));
        first_block->forward(hidden, windows_.length, backend_,
                             [&](const std::string& group, const Buffer& x, std::span<const Index> rows) {
                                 monitor_.throw_if_cancelled();
                                 inputs[group] = {x, {rows.begin(), rows.end()}};
                             });
        Status seen;
        Buffer other = backend_.upload(second_stream.states.rows(token, tokens));
        second_block->forward(other, windows_.length, backend_,
                              [&](const std::string& group, const Buffer& x, std::span<const Index> rows) {
                                  monitor_.throw_if_cancelled();
                                  const auto found =
                                      inputs.find(group); // an expert may have seen tokens in one stream only
                                  if (!seen || !observer || found == inputs.end())
                                      return;
                                  const auto [mine, theirs] = common_tokens(found->second, x, rows, backend_);
                                  if (!mine.empty())
                                      seen = observer(block, first, group, mine, theirs);
                              });
        if (advance) {
            first_stream.states.next_rows(token, tokens) = backend_.download(hidden);
            second_stream.states.next_rows(token, tokens) = backend_.download(other);
        }
        first_stream.states.release(token, tokens);
        second_stream.states.release(token, tokens);
        return seen;
    });
    if (!done || !advance)
        return done;
    if (auto finished = first_stream.states.finish_block(); !finished)
        return finished;
    return second_stream.states.finish_block();
}

Status stream_blocks(const Model& model, const WeightSource& weights, const TokenWindows& windows,
                     HiddenStates& states, const PassEvents& events, Backend& backend, Monitor& monitor,
                     int first_block)
{
    StreamingPass pass(model, windows, backend, monitor);
    const int blocks = static_cast<int>(model.config().blocks);
    pass.expect_blocks(first_block, blocks);
    if (first_block == 0) {
        if (auto status = pass.embed(states); !status)
            return status;
    }
    for (int block = first_block; block < blocks; ++block) {
        monitor.throw_if_cancelled();
        if (auto status = pass.run_block(block, {weights, states}, events); !status)
            return status;
    }
    return {};
}

} // namespace rankscope
