// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string>

/// Names in a calibration folder, shared by its writer and its reader.
namespace rankscope::calibration_format {

inline constexpr char k_format[] = "rankscope-calibration";
inline constexpr int k_version = 2;
/// Which knows neither quantized activations, first tokens, block outputs and samples nor the checkpoint's
/// bytes.
inline constexpr int k_oldest_version = 1;
inline constexpr char k_index_file[] = "calibration.json";
inline constexpr std::int64_t k_sampled_tokens = 512;
inline constexpr int k_strongest = 32; ///< entries of a block's output that are kept with their place

inline constexpr char k_hessian[] = ".hessian";
inline constexpr char k_sigma_xy[] = ".sigma_xy";
inline constexpr char k_sigma_yy[] = ".sigma_yy";
inline constexpr char k_mean_abs[] = ".mean_abs";
inline constexpr char k_max_abs[] = ".max_abs";
inline constexpr char k_first[] =
    ".first"; ///< before the names of statistics: of the first token of each window
inline constexpr char k_later[] = ".later"; ///< of all others
inline constexpr char k_statistics[] = ".statistics";
inline constexpr char k_histogram[] = ".histogram";
inline constexpr char k_counts[] = ".counts";
inline constexpr char k_crest[] = ".token_crest";
inline constexpr char k_sample[] = ".sample";
inline constexpr char k_sample_tokens[] = ".sample_tokens";
inline constexpr char k_output[] = "output"; ///< in the place of a group: what the block adds up to
inline constexpr char k_strongest_entries[] = ".strongest";

inline std::string block_file(int block)
{
    const std::string digits = std::to_string(block);
    return "block-" + std::string(digits.size() < 4 ? 4 - digits.size() : 0, '0') + digits + ".safetensors";
}

} // namespace rankscope::calibration_format
