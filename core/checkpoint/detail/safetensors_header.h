// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "core/base/json.h"
#include "core/base/result.h"
#include "core/checkpoint/checkpoint_reader.h"

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace rankscope::detail {

/// What the front of a safetensors file says, checked against the bytes that follow it.
struct SafetensorsHeader {
    std::vector<TensorInfo> tensors; ///< sorted by name; offsets from the start of the file
    Json metadata;                   ///< `__metadata__`, or null
    std::string_view bytes;          ///< length field and JSON text, pointing into the file
};

/// The largest header that is accepted; the format's own limit.
inline constexpr std::uint64_t k_max_safetensors_header = 100'000'000;

/// Parses and checks the header of a whole file. Nobody vouches for the bytes: every length is compared with
/// what is left, products are checked for overflow, and the tensors must fill the data without overlap or
/// hole. Errors: BadInput, naming tensor and offsets.
Result<SafetensorsHeader> parse_safetensors_header(std::span<const std::byte> file);

} // namespace rankscope::detail
