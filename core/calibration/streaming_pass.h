// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/hidden_states.h"
#include "core/calibration/token_windows.h"
#include "core/model/model.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace rankscope {

/// What a pass over `windows` windows needs at a time, in bytes; estimates from shapes alone.
struct PassMemory {
    std::uint64_t block_weights =
        0; ///< the largest block, float32, one matrix more while it is loaded, and its stored form
    std::uint64_t activations = 0; ///< of one batch
    std::uint64_t hidden = 0;      ///< HiddenStates of all windows
};
PassMemory pass_memory(const Model& model, Index windows, Index length);

/// Whether hidden states of `hidden_bytes` stay in memory beside `fixed_bytes` within `budget_bytes` (0: no
/// limit). Errors: NoSpace when not even `fixed_bytes` fit, naming both figures.
Result<bool> hidden_states_fit(std::uint64_t hidden_bytes, std::uint64_t fixed_bytes,
                               std::uint64_t budget_bytes);
/// Hidden states in memory where they fit, else in a scratch file in `folder`. Errors: as hidden_states_fit,
/// Io.
Result<HiddenStates> make_hidden_states(Index tokens, Index width, std::uint64_t fixed_bytes,
                                        std::uint64_t budget_bytes, const std::filesystem::path& folder);

/// Windows that go through a block together: a fixed number of tokens, so that results do not depend on the
/// budget.
Index windows_per_batch(Index length);

/// One text on its way through the blocks with one set of weights.
struct PassStream {
    const WeightSource& weights;
    HiddenStates& states;
};

/// What a caller sees of a block; every member may be empty.
struct PassEvents {
    std::function<Status(int block)> block_begins;
    /// The input x (tokens × in) of an input group, for the windows from `first_window` on; `rows` as
    /// InputObserver's.
    std::function<Status(int block, Index first_window, const std::string& group, const Buffer& x,
                         std::span<const Index> rows)>
        input;
    /// What the block made of these windows.
    std::function<Status(int block, Index first_window, const Buffer& hidden)> output;
    /// HiddenStates::result_row gives the result, and finish_block() comes next.
    std::function<Status(int block)> block_ends;
    /// The result is what the next block reads; HiddenStates::saved() says whether it is on the drive.
    std::function<Status(int block)> block_finished;
};

/// The inputs of one group in both streams of a pair: row i of both belongs to the same token. An expert sees
/// the tokens that reached it in both.
using PairObserver = std::function<Status(int block, Index first_window, const std::string& group,
                                          const Buffer& x, const Buffer& other)>;

/// Sends windows through the blocks of a model, one block's weights at a time and all windows through it
/// before the next. Reports batches as "block 3 of 30". Throws Cancelled, BackendFailure.
class StreamingPass {
public:
    StreamingPass(const Model& model, const TokenWindows& windows, Backend& backend, Monitor& monitor)
        : model_(model), windows_(windows), backend_(backend), monitor_(monitor),
          step_(windows_per_batch(windows.length))
    {}

    /// The progress counts blocks from `first` to `last` (not included); all of them until said otherwise.
    void expect_blocks(int first, int last);

    Status embed(HiddenStates& states);
    /// Errors: those of the weights and of the events.
    Status run_block(int block, const PassStream& stream, const PassEvents& events);
    /// Two streams side by side: `second` may have other weights and other states (those of the compressed
    /// model, for
    /// --propagate). With `advance` false the states stay as they are: the inputs were only looked at.
    Status run_block_pair(int block, const PassStream& first, const PassStream& second,
                          const PairObserver& observer, bool advance);

private:
    Result<TransformerBlock> load(int block, const WeightSource& weights);
    template <class Body>
    Status each_batch(const std::string& what, const Body& body);
    std::string name_of(int block) const;
    Index first_token(Index window) const { return window * windows_.length; }

    const Model& model_;
    const TokenWindows& windows_;
    Backend& backend_;
    Monitor& monitor_;
    Index step_;
    Index done_ = 0;
    Index total_ = 0; ///< batches; 0: not known
};

/// Embeds the windows and sends them through all blocks, or from `first_block` on with states that are its
/// input. `states` ends as the input of the final norm (on a device until bring_back()). Errors: those of the weights
/// and of the events.
Status stream_blocks(const Model& model, const WeightSource& weights, const TokenWindows& windows,
                     HiddenStates& states, const PassEvents& events, Backend& backend, Monitor& monitor,
                     int first_block = 0);

} // namespace rankscope
