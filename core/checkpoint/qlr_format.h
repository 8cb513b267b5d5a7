// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

/// Names of the hf-qlr format (docs/formats.md), for its writer and its reader.
namespace rankscope {

inline constexpr char k_qlr_format[] = "rankscope-qlr";
inline constexpr std::int64_t k_qlr_version = 1;
inline constexpr char k_qlr_schema_file[] = "rankscope_qlr.json";
inline constexpr char k_qlr_weights_file[] = "qlr.safetensors";

/// Tensor names of a layer: the layer's name and one of these.
inline constexpr char k_qlr_codes[] = ".qlr_codes";
inline constexpr char k_qlr_scales[] = ".qlr_scales";
inline constexpr char k_qlr_zeros[] = ".qlr_zeros";
inline constexpr char k_qlr_left[] = ".qlr_left";
inline constexpr char k_qlr_right[] = ".qlr_right";

} // namespace rankscope
