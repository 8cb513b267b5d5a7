// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/calibration/token_windows.h"
#include "core/model/model.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace rankscope {

/// The hidden states of all tokens of a text between two blocks: tokens × hidden size, float32, in memory or
/// in a mapped scratch file that nobody else sees. Movable; one thread at a time.
class HiddenStates {
public:
    static Result<HiddenStates> in_memory(Index tokens, Index width);
    /// The file is made in `folder`, its space is reserved, and it vanishes with this object or the process.
    /// Errors: Io, NoSpace.
    static Result<HiddenStates> in_scratch_file(Index tokens, Index width,
                                                const std::filesystem::path& folder);
    HiddenStates(HiddenStates&& other) noexcept;
    HiddenStates& operator=(HiddenStates&& other) noexcept;
    ~HiddenStates();

    Index tokens() const { return tokens_; }
    Index width() const { return width_; }
    bool in_file() const { return mapping_ != nullptr; }
    Eigen::Map<Matrix> rows(Index first, Index count);
    /// These rows are not needed for now: lets a file's pages leave this process's memory.
    void release(Index first, Index count);

private:
    HiddenStates(Index tokens, Index width) : tokens_(tokens), width_(width) {}

    Index tokens_ = 0;
    Index width_ = 0;
    Matrix memory_;
    float* mapping_ = nullptr;
    std::size_t mapping_bytes_ = 0;
};

/// What a pass over `windows` windows needs at a time, in bytes; estimates from shapes alone.
struct PassMemory {
    std::uint64_t block_weights = 0; ///< the largest block, float32, and one matrix more while it is loaded
    std::uint64_t activations = 0;   ///< of one batch
    std::uint64_t hidden = 0;        ///< HiddenStates of all windows
};
PassMemory pass_memory(const Model& model, Index windows, Index length);

/// Hidden states in memory where `fixed_bytes` beside them stay within `budget_bytes` (0: no limit), else in
/// a scratch file in `folder`. Errors: NoSpace when not even `fixed_bytes` fit, naming both figures.
Result<HiddenStates> make_hidden_states(Index tokens, Index width, std::uint64_t fixed_bytes,
                                        std::uint64_t budget_bytes, const std::filesystem::path& folder);

/// Windows that go through a block together: a fixed number of tokens, so that results do not depend on the
/// budget.
Index windows_per_batch(Index length);

/// What a caller of stream_blocks sees; every member may be empty.
struct PassEvents {
    std::function<Status(int block)> block_begins;
    /// The input x (tokens × in) of an input group, for the windows from `first_window` on; `rows` as
    /// InputObserver's.
    std::function<Status(int block, Index first_window, const std::string& group, const Buffer& x,
                         std::span<const Index> rows)>
        input;
    std::function<Status(int block)> block_ends;
};

/// Embeds the windows and sends them through all blocks: one block's weights are loaded at a time and all
/// windows go through it before the next. `states` ends as the input of the final norm. Reports batches as
/// "block 3 of 30". Errors: those of the weights and of the events. Throws Cancelled, BackendFailure.
Status stream_blocks(const Model& model, const WeightSource& weights, const TokenWindows& windows,
                     HiddenStates& states, const PassEvents& events, Backend& backend, Monitor& monitor);

} // namespace rankscope
