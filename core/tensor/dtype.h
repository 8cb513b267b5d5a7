// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace rankscope {

/// Element types that checkpoints hold. The names are those of safetensors.
enum class DType : std::uint8_t {
    F64,
    F32,
    F16,
    BF16,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0, ///< powers of two: the scales of MX formats
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool
};

std::size_t size_bytes(DType dtype); ///< of one element
std::string_view name(DType dtype);  ///< "BF16"
std::optional<DType> dtype_from_name(std::string_view name);
bool is_float(DType dtype);

} // namespace rankscope
