// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string>

/// Names in a calibration folder, shared by its writer and its reader.
namespace rankscope::calibration_format {

inline constexpr char k_format[] = "rankscope-calibration";
inline constexpr int k_version = 2;
inline constexpr int k_oldest_version = 1; ///< which has no quantised activations
inline constexpr char k_index_file[] = "calibration.json";
inline constexpr std::int64_t k_statistics_rows = 8;

inline constexpr char k_hessian[] = ".hessian";
inline constexpr char k_sigma_xy[] = ".sigma_xy";
inline constexpr char k_sigma_yy[] = ".sigma_yy";
inline constexpr char k_mean_abs[] = ".mean_abs";
inline constexpr char k_max_abs[] = ".max_abs";
inline constexpr char k_statistics[] = ".statistics";
inline constexpr char k_histogram[] = ".histogram";
inline constexpr char k_counts[] = ".counts";

inline std::string block_file(int block)
{
    const std::string digits = std::to_string(block);
    return "block-" + std::string(digits.size() < 4 ? 4 - digits.size() : 0, '0') + digits + ".safetensors";
}

} // namespace rankscope::calibration_format
