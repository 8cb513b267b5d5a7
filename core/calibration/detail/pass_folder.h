// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"

#include <filesystem>

namespace rankscope {

/// The folder in which a calibration grows, beside its final place (`OUT.unfinished`). What is finished is on
/// the drive before it is recorded, so that a pass that was killed at any moment goes on from its last
/// record. Destroyed without commit() it stays when something was recorded, and vanishes otherwise. Movable;
/// one thread at a time.
class PassFolder {
public:
    struct Progress {
        int finished_blocks = 0;
        int generation = -1; ///< file of the hidden states behind the last finished block
        Json tensors;        ///< what the passes so far have learned of the checkpoint's tensors
    };
    struct Options {
        bool resume = false;
        bool replace = false; ///< --force: of the final folder, and of an interrupted pass that cannot go on
    };

    /// `settings` names what the result depends on: only a pass with the same ones is resumed. Errors:
    /// BadInput
    /// (`out` exists; an interrupted pass is there and neither resume nor replace was asked for, or its
    /// settings differ; another process is at it), Io.
    static Result<PassFolder> open(const std::filesystem::path& out, const Json& settings,
                                   const Options& options);
    PassFolder(PassFolder&& other) noexcept;
    PassFolder& operator=(PassFolder&& other) noexcept;
    ~PassFolder();

    const std::filesystem::path& path() const { return part_; }
    const Progress& progress() const { return progress_; }
    /// Makes `progress` what a resumed pass begins with.
    Status record(Progress progress);
    /// Gives up: nothing of the pass stays.
    void discard() noexcept;
    /// Removes what only a pass needs and gives the folder its final name.
    Status commit();

private:
    PassFolder() = default;
    Status take_over(const Json& settings, const Options& options);
    Status refuse_or_remove(const Error& error, bool replace);
    Status lock();

    std::filesystem::path out_;
    std::filesystem::path part_;
    Json settings_;
    Progress progress_;
    bool replace_ = false;
    int lock_ = -1;
};

} // namespace rankscope
