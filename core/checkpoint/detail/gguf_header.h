// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/checkpoint/checkpoint_reader.h"

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace rankscope::detail {

/// What the front of a GGUF file says, checked against the bytes that follow it.
struct GgufHeader {
    std::vector<TensorInfo>
        tensors;   ///< sorted by name; offsets from the start of the file; shape outermost first
    Json metadata; ///< key → value; arrays as they are
    std::size_t header_bytes = 0; ///< up to the end of the tensor list
};

/// Parses and checks the header of a whole file (version 2 or 3). Nobody vouches for the bytes: counts are
/// compared with what is left before anything is reserved, products are checked for overflow, names are
/// unique, tensors lie in the file, aligned and without overlap. Errors: BadInput, naming key or tensor and
/// the offset.
Result<GgufHeader> parse_gguf_header(std::span<const std::byte> file);

/// A single .gguf file. Tensor names are the file's own ("blk.0.attn_q.weight").
Result<std::unique_ptr<CheckpointReader>> open_gguf_file(const std::filesystem::path& path,
                                                         const std::filesystem::path& file);

} // namespace rankscope::detail
