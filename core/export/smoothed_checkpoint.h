// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/model/model.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace rankscope {

/// A norm and everything that reads its result: what smoothing scales together (methods-learned §3). Fused,
/// parallel and shared norms count once.
struct SmoothingGroup {
    int block = 0;
    std::string norm;                        ///< tensor name of the gain
    std::vector<const LinearLayer*> linears; ///< scaled by s on their inputs
    std::vector<std::string> routers;        ///< other matrices that read it: experts' routers and gates
};
/// In order of the blocks. A block whose linears read no norm of their own has no group.
std::vector<SmoothingGroup> smoothing_groups(const Model& model);

struct SmoothedCheckpointOptions {
    bool replace = false;
    Json note; ///< kept in smoothing.json
};

/// Writes the checkpoint with W ← W·diag(s) for a group's readers and gain (and bias) ← gain / s for its
/// norm: the same function in real arithmetic. `scales` gives s > 0 of a group, or an empty vector to leave
/// it as it is. Changed tensors become float32, so that the folding itself loses nothing; all others keep
/// their bytes. Errors: BadInput (a GGUF file, scales of another size or not positive, `folder` exists), Io,
/// NoSpace, Cancelled.
Status write_smoothed_checkpoint(const Model& model,
                                 const std::function<Result<VectorD>(const SmoothingGroup&)>& scales,
                                 const std::filesystem::path& folder,
                                 const SmoothedCheckpointOptions& options, Monitor& monitor);

/// Whether a folder was written by write_smoothed_checkpoint.
bool is_smoothed(const std::filesystem::path& folder);

} // namespace rankscope
