// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/monitor.h"
#include "core/model/model.h"

#include <map>
#include <string>
#include <vector>

namespace rankscope {

/// Tensors of the checkpoint that a block is loaded from.
std::vector<std::string> block_tensors(const Model& model, int block);
/// Those that make what enters the first block.
std::vector<std::string> embedding_tensors(const Model& model);

/// SHA-256 of the stored bytes of each tensor, by name. Errors: those of CheckpointReader::view. Throws
/// Cancelled.
using TensorHashes = std::map<std::string, std::string, std::less<>>;
Result<TensorHashes> hash_tensors(const CheckpointReader& reader, const std::vector<std::string>& names,
                                  Monitor& monitor);

/// Size and time of the last change of each of a checkpoint's files: what tells at once that nothing has
/// changed.
struct FileStamp {
    std::uint64_t size_bytes = 0;
    std::int64_t changed_ns = 0; ///< since 1970; −1: unknown
    bool operator==(const FileStamp&) const = default;
};
std::vector<FileStamp> file_stamps(const CheckpointReader& reader);

} // namespace rankscope
