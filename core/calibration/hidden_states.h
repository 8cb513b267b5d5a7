// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"
#include "core/compute/backend.h"

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>

namespace rankscope {

/// The hidden states of all tokens of a text between two blocks: tokens × hidden size, float32, in memory or
/// in mapped scratch files, or on the device that computes them. Movable; one thread at a time.
class HiddenStates {
public:
    static Result<HiddenStates> in_memory(Index tokens, Index width);
    /// The file is made in `folder`, its space is reserved, and it vanishes with this object or the process.
    /// Errors: Io, NoSpace.
    static Result<HiddenStates> in_scratch_file(Index tokens, Index width,
                                                const std::filesystem::path& folder);

    struct Durable {
        std::filesystem::path folder;
        bool mapped = false;       ///< the files are the memory; otherwise they are written after each block
        int valid_generation = -1; ///< the file that holds the states to go on with; −1: none yet
    };
    /// States that survive the process: of each block's result a file in `folder`, two of which take turns,
    /// so that the one before is whole until finish_block() has put the next one on the drive. Errors: Io,
    /// NoSpace; BadInput when the valid file is missing or of another size.
    static Result<HiddenStates> durable(Index tokens, Index width, const Durable& options);
    static std::filesystem::path generation_file(const std::filesystem::path& folder, int generation);

    /// From now on set_batch() leaves the states where `backend` computes, unless that is the host's own memory. They
    /// come back by bring_back(), and durable ones to be saved: at the first end of a block so long after the last time.
    void stay_on_device(Backend& backend,
                        std::chrono::milliseconds save_interval = std::chrono::seconds(60));

    HiddenStates(HiddenStates&& other) noexcept;
    HiddenStates& operator=(HiddenStates&& other) noexcept;
    ~HiddenStates();

    Index tokens() const { return tokens_; }
    Index width() const { return width_; }
    bool in_file() const { return files_[0].mapping != nullptr; }
    /// What the next block reads.
    Eigen::Map<Matrix> rows(Index first, Index count);
    /// Where its result goes: the same memory unless the files are mapped and durable.
    Eigen::Map<Matrix> next_rows(Index first, Index count);
    /// What the next block reads of these tokens, on the backend. The block may work in place.
    Buffer batch(Index first, Index count, Backend& backend);
    /// Its result, for tokens from `first` on; a batch that was put here once comes in the same cut again.
    void set_batch(Index first, const Buffer& hidden, Backend& backend);
    /// One row of the result, before finish_block().
    Eigen::RowVectorXf result_row(Index token);
    /// States on a device become rows().
    void bring_back();

    /// The result of a block is complete: it becomes what the next one reads, and is on the drive where it is
    /// durable and was not left on the device.
    Status finish_block();
    bool saved() const { return saved_; } ///< whether the last finish_block() left it on the drive
    int generation() const { return current_; } ///< of durable states: the file that holds rows()
    /// These rows are not needed for now: lets a file's pages leave this process's memory.
    void release(Index first, Index count);

private:
    struct File {
        int descriptor = -1;
        float* mapping = nullptr;
    };

    HiddenStates(Index tokens, Index width) : tokens_(tokens), width_(width) {}
    std::uint64_t bytes() const;
    Status map(File& file, const std::filesystem::path& folder);
    Status open_generations(const Durable& options);
    Status write_generation(int generation);
    Status read_generation(int generation);
    float* base(int generation);

    Index tokens_ = 0;
    Index width_ = 0;
    Matrix memory_;
    std::array<File, 2> files_;
    Backend* device_ = nullptr;        ///< where the states stay; null: on the host
    std::map<Index, Buffer> resident_; ///< by their first token
    std::chrono::milliseconds save_interval_{};
    std::chrono::steady_clock::time_point last_saved_;
    bool saved_ = false;
    std::filesystem::path folder_; ///< of durable states
    bool durable_ = false;
    int current_ = 0;
};

} // namespace rankscope
