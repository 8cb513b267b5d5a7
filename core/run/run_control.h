// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace rankscope {

/// What a person asks of a run while it is under way. Thread-safe.
class RunControl {
public:
    /// No further layer begins; those under way are finished and saved, then the run ends as a cancelled one does
    /// and can be gone on with.
    void pause() { paused_ = true; }
    bool paused() const { return paused_; }

    /// This layer before the others that still wait, also before those asked for earlier. It begins as soon as a
    /// thread and its share of the memory are free. No effect on layers that learn block by block.
    void run_next(const std::string& layer);
    /// What was asked for, the last one first; asked for twice counts once.
    std::vector<std::string> wanted() const;

private:
    std::atomic<bool> paused_ = false;
    mutable std::mutex mutex_;
    std::vector<std::string> wanted_;
};

} // namespace rankscope
