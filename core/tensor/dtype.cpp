// SPDX-License-Identifier: GPL-3.0-or-later
#include "core/tensor/dtype.h"

#include <array>

namespace rankscope {
namespace {

struct Row {
    DType dtype;
    std::string_view name;
    std::size_t bytes;
};

constexpr std::array k_rows = {
    Row{DType::F64, "F64", 8},         Row{DType::F32, "F32", 4},         Row{DType::F16, "F16", 2},
    Row{DType::BF16, "BF16", 2},       Row{DType::F8_E4M3, "F8_E4M3", 1}, Row{DType::F8_E5M2, "F8_E5M2", 1},
    Row{DType::F8_E8M0, "F8_E8M0", 1}, Row{DType::I64, "I64", 8},         Row{DType::I32, "I32", 4},
    Row{DType::I16, "I16", 2},         Row{DType::I8, "I8", 1},           Row{DType::U64, "U64", 8},
    Row{DType::U32, "U32", 4},         Row{DType::U16, "U16", 2},         Row{DType::U8, "U8", 1},
    Row{DType::Bool, "BOOL", 1},
};

} // namespace

std::size_t size_bytes(DType dtype) { return k_rows[static_cast<std::size_t>(dtype)].bytes; }

std::string_view name(DType dtype) { return k_rows[static_cast<std::size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view text)
{
    for (const Row& row : k_rows) {
        if (row.name == text)
            return row.dtype;
    }
    return std::nullopt;
}

bool is_float(DType dtype) { return dtype <= DType::F8_E8M0; }

} // namespace rankscope
