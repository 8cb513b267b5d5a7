// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/tensor/tensor_view.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace rankscope {

/// Types of metadata values that are written; the numbers are the file format's own.
enum class GgufType : std::uint32_t { U32 = 4, I32 = 5, F32 = 6, Flag = 7, Text = 8 };

/// A metadata value, or a list of them. llama.cpp asks for the very type.
struct GgufValue {
    GgufType type = GgufType::U32;
    Json value; ///< a list: all of `type`
};
using GgufValues = std::map<std::string, GgufValue>;

/// What a GGUF file may store a tensor as: a float type or blocks.
struct GgufStorage {
    std::uint32_t number = 0; ///< the file format's own
    std::string_view name;    ///< "Q4_0"
    std::size_t elements = 1; ///< of a block, along the innermost dimension
    std::size_t bytes = 4;    ///< of a block

    static GgufStorage of(DType dtype); ///< F32, F16, BF16
    static GgufStorage of(BlockFormat format);
    std::uint64_t size(const Shape& shape) const;
    bool operator==(const GgufStorage&) const = default;
};

/// One tensor to be written; `fill` makes its bytes when its turn comes.
struct GgufTensorSource {
    std::string name;
    GgufStorage storage;
    Shape shape; ///< outermost first, as everywhere here
    std::function<Result<std::vector<std::byte>>()> fill;
};

/// Writes a GGUF file of version 3 atomically: metadata by name with general.architecture in front, tensors
/// as they are given, aligned to 32 bytes. Errors: Io, NoSpace (checked before the first byte), BadInput
/// (exists, no force), Internal (values of another type than they say, sizes that do not fit), what a
/// source's `fill` returned.
Status write_gguf(const std::filesystem::path& path, const GgufValues& metadata,
                  const std::vector<GgufTensorSource>& tensors, bool replace);

} // namespace rankscope
