// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/result.h"

#include <cstdint>
#include <filesystem>

namespace rankscope::test {

/// The size of a Llama.
struct SparseShape {
    std::int64_t hidden = 4096;
    std::int64_t intermediate = 11008;
    std::int64_t blocks = 32;
    std::int64_t heads = 32;
    std::int64_t kv_heads = 32;
    std::int64_t vocabulary = 32000;
    int shards = 1;
};
inline constexpr SparseShape k_shape_7b = {4096, 11008, 32, 32, 32, 32000, 2};
inline constexpr SparseShape k_shape_70b = {8192, 28672, 80, 64, 8, 128256, 30};

/// A Hugging Face folder of that size in BF16 whose headers are written and whose weights are holes in sparse
/// files: it takes some kilobytes of the drive. Returns the bytes of all headers. Errors: Io.
Result<std::uint64_t> write_sparse_model(const std::filesystem::path& folder, const SparseShape& shape);

} // namespace rankscope::test
